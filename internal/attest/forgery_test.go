package attest_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/attest"
	"slipway/pipeline"
)

// TestForgeries plays whoever owns the registry and every key but ours, and
// then whoever has our key sign what does not do. Each forgery stands in for
// the one attestation that an image lacks; none may take its place.
func TestForgeries(t *testing.T) {
	n := 200
	if os.Getenv("SLIPWAY_SOAK") != "" {
		n = 1000
	}
	seed := uint64(time.Now().UnixNano())
	f := newForger(t, seed)
	if table, err := f.try([]document{f.genuine()}); !table.Met() {
		t.Fatalf("the genuine attestation does not do: %+v, %v", table, err)
	}
	kinds := f.kinds()
	type tally struct{ tried, accepted int }
	count, by := map[string]*tally{}, map[string]map[string]int{}
	for i := range n {
		kind := kinds[i%len(kinds)]
		table, why := f.try(kind.forge())
		if count[kind.name] == nil {
			count[kind.name], by[kind.name] = &tally{}, map[string]int{}
		}
		count[kind.name].tried++
		by[kind.name][why]++
		if table.Met() {
			count[kind.name].accepted++
			t.Errorf("accepted: %s (seed %d, forgery %d)", kind.name, seed, i)
		}
	}
	var text strings.Builder
	all := tally{}
	for _, k := range kinds {
		c := count[k.name]
		all.tried, all.accepted = all.tried+c.tried, all.accepted+c.accepted
		fmt.Fprintf(&text, "%-48s %5d %9d   %v\n", k.name, c.tried, c.accepted, by[k.name])
	}
	t.Logf("\n%-48s tried  accepted   refused for\n%s%-48s %5d %9d", "forgery", text.String(), "all", all.tried, all.accepted)
}

// document is what a registry hands out as one referrer.
type document struct{ manifest, bundle []byte }

type forger struct {
	world
	t       *testing.T
	rand    *rand.Rand
	foreign attest.Signer // a key that nobody lists
	ended   attest.Signer // a listed key whose time is over
	early   attest.Signer // a listed key whose time began an hour ago
	rest    []attest.Verified
}

func newForger(t *testing.T, seed uint64) *forger {
	f := &forger{world: newWorld(t), t: t, rand: rand.New(rand.NewPCG(seed, 0)), foreign: newSigner(t)}
	var err error
	for _, s := range []*attest.Signer{&f.ended, &f.early} { // they sign whenever they are asked; the list has their times
		if *s, _, err = attest.NewSigner(now.Add(-2*time.Hour), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	f.rest = f.verifyAll(t, []attest.Predicate{f.result(t, "integration"), f.provenance(t)})
	return f
}

// try hands documents to a gate that has everything but the result of "unit".
// It says what the gate finds, and why the last document did not count.
func (f *forger) try(docs []document) (attest.Table, string) {
	ended, early := f.ended.Key, f.early.Key
	ended.NotAfter, early.NotBefore = now.Add(-time.Hour), now.Add(-time.Hour)
	listed := []attest.Key{f.signer.Key, ended, early}
	found, why := slices.Clone(f.rest), ""
	for _, d := range docs {
		v, err := attest.Verify(f.subject, d.manifest, d.bundle, listed, now)
		if err == nil {
			found = append(found, v)
			continue
		}
		var r *attest.Refusal
		if !errors.As(err, &r) {
			f.t.Fatalf("refused for no reason: %v", err)
		}
		why = r.Reason.Error()
	}
	demand := attest.Demand{Image: "web", Tests: []string{"unit", "integration"}, Provenance: true}
	table := attest.Check(f.subject.Digest, demand, found, f.expected(found))
	if why == "" {
		why = "gate"
	}
	return table, why
}

func (f *forger) genuine() document { return f.signed(f.signer, f.result(f.t, "unit")) }

func (f *forger) signed(s attest.Signer, p attest.Predicate) document {
	return f.about(s, f.subject, p)
}

func (f *forger) about(s attest.Signer, subject ocispec.Descriptor, p attest.Predicate) document {
	f.t.Helper()
	a, err := s.Attest(f.t.Context(), subject, p)
	if err != nil {
		f.t.Fatal(err)
	}
	return document{a.Manifest, a.Bundle}
}

type kind struct {
	name  string
	forge func() []document
}

func (f *forger) kinds() []kind {
	return append(f.mutated(), f.misused()...)
}

// mutated are forgeries of somebody without the key.
func (f *forger) mutated() []kind {
	one := func(name string, forge func(document) document) kind {
		return kind{name, func() []document { return []document{forge(f.genuine())} }}
	}
	return []kind{
		one("bundle: a byte changed", func(d document) document { return document{d.manifest, f.flip(d.bundle)} }),
		one("bundle: a byte changed, manifest made to fit", func(d document) document { return f.refit(d, f.flip(d.bundle)) }),
		one("bundle: cut off or grown", func(d document) document { return f.refit(d, f.cut(d.bundle)) }),
		one("manifest: a byte changed", func(d document) document { return document{f.flip(d.manifest), d.bundle} }),
		one("manifest: cut off or grown", func(d document) document { return document{f.cut(d.manifest), d.bundle} }),
		one("manifest: another time", func(d document) document {
			return document{bytes.Replace(d.manifest, []byte("T20:00:00Z"), fmt.Appendf(nil, "T20:00:%02dZ", 1+f.rand.IntN(59)), 1), d.bundle}
		}),
		one("subject: of another image, manifest made to fit", func(document) document {
			other := f.subject
			other.Digest = digest.FromString(fmt.Sprint(f.rand.Uint64()))
			d := f.about(f.signer, other, f.result(f.t, "unit"))
			return document{bytes.ReplaceAll(d.manifest, []byte(other.Digest), []byte(f.subject.Digest)), d.bundle}
		}),
		one("subject: rewritten in the payload", func(document) document {
			other := f.subject
			other.Digest = digest.FromString(fmt.Sprint(f.rand.Uint64()))
			d := f.about(f.signer, other, f.result(f.t, "unit"))
			return f.payload(d, func(p string) string {
				return strings.ReplaceAll(p, other.Digest.Encoded(), f.subject.Digest.Encoded())
			})
		}),
		one("result: FAILED rewritten to PASSED", func(document) document {
			r := f.result(f.t, "unit")
			r.Passed = false
			return f.payload(f.signed(f.signer, r), func(p string) string {
				return strings.NewReplacer("FAILED", "PASSED", `"passedTests":[]`, `"passedTests":["unit"]`, `"failedTests":["unit"]`, `"failedTests":[]`).Replace(p)
			})
		}),
		one("result: said twice", func(document) document {
			r := f.result(f.t, "unit")
			r.Passed = false
			return f.payload(f.signed(f.signer, r), func(p string) string { return strings.Replace(p, `{"result":`, `{"result":"PASSED","result":`, 1) })
		}),
		one("signature: of another statement", func(d document) document {
			return f.withSignature(d, signatureOf(f.t, f.signed(f.signer, f.result(f.t, "integration")).bundle))
		}),
		one("signature: its other form", func(d document) document {
			r, s := numbers(f.t, signatureOf(f.t, d.bundle))
			return f.withSignature(d, der(f.t, r, s.Sub(elliptic.P256().Params().N, s)))
		}),
		one("signature: degenerate", func(d document) document {
			n := elliptic.P256().Params().N
			some := []*big.Int{big.NewInt(0), big.NewInt(1), n, new(big.Int).Neg(big.NewInt(1)), new(big.Int).Lsh(n, 8)}
			return f.withSignature(d, der(f.t, some[f.rand.IntN(len(some))], some[f.rand.IntN(len(some))]))
		}),
		one("key: a stranger's, with our hint", func(d document) document {
			stranger := f.signed(f.foreign, f.result(f.t, "unit"))
			return f.refit(stranger, bytes.ReplaceAll(stranger.bundle, hintOf(f.t, stranger.bundle), hintOf(f.t, d.bundle)))
		}),
		one("key: ours, with a stranger's hint", func(d document) document {
			stranger := f.signed(f.foreign, f.result(f.t, "unit"))
			return f.refit(d, bytes.ReplaceAll(d.bundle, hintOf(f.t, d.bundle), hintOf(f.t, stranger.bundle)))
		}),
	}
}

// misused are statements that are signed as they should be and must not do.
func (f *forger) misused() []kind {
	result := func(name string, edit func(*attest.TestResult)) kind {
		return kind{name, func() []document {
			r := f.result(f.t, "unit")
			edit(&r)
			return []document{f.signed(f.signer, r)}
		}}
	}
	some := func() digest.Digest { return digest.FromString(fmt.Sprint(f.rand.Uint64())) }
	commit := func() string { return some().Encoded()[:40] }
	return []kind{
		{"signed: by a key that nobody lists", func() []document { return []document{f.signed(f.foreign, f.result(f.t, "unit"))} }},
		{"signed: by a listed key after its time", func() []document {
			r := f.result(f.t, "unit")
			r.Signed = now.Add(-time.Duration(f.rand.IntN(3599)) * time.Second)
			return []document{f.signed(f.ended, r)}
		}},
		{"signed: by a listed key before its time", func() []document {
			r := f.result(f.t, "unit")
			r.Signed = now.Add(-time.Hour - time.Duration(1+f.rand.IntN(3599))*time.Second)
			return []document{f.signed(f.early, r)}
		}},
		result("signed: in the future", func(r *attest.TestResult) {
			r.Signed = now.Add(6*time.Minute + time.Duration(f.rand.IntN(1000))*time.Second)
		}),
		result("signed: FAILED", func(r *attest.TestResult) { r.Passed = false }),
		{"signed: PASSED, while a FAILED stands", func() []document {
			r := f.result(f.t, "unit")
			r.Passed, r.Run = false, commit()
			p := f.result(f.t, "unit")
			p.Supersedes = []digest.Digest{some()}
			return []document{f.signed(f.signer, r), f.signed(f.signer, p)}
		}},
		{"signed: PASSED before the FAILED that it names", func() []document {
			r := f.result(f.t, "unit")
			r.Passed = false
			failed := f.signed(f.signer, r)
			p := f.result(f.t, "unit")
			p.Finished = p.Finished.Add(-time.Duration(1+f.rand.IntN(59)) * time.Second)
			p.Supersedes = []digest.Digest{digest.FromBytes(failed.manifest)}
			return []document{failed, f.signed(f.signer, p)}
		}},
		{"signed: about another image", func() []document {
			other := f.subject
			other.Digest = some()
			return []document{f.about(f.signer, other, f.result(f.t, "unit"))}
		}},
		result("signed: in another repository", func(r *attest.TestResult) {
			r.Source.Repository, r.Source.Commit = "https://forge.example/evil.git", commit()
		}),
		result("signed: on an unmerged branch", func(r *attest.TestResult) { r.Source.Commit, r.Source.Ref = commit(), "refs/heads/evil" }),
		{"signed: an unmerged commit's weaker test", func() []document {
			file := []byte(strings.Replace(ciYML, "[pytest, -q]", `["true"]`, 1))
			source := f.source
			source.Commit = commit()
			weak := f.world
			weak.file, weak.source = file, source
			weak.plan = expand(f.t, file, source)
			return []document{f.signed(f.signer, weak.result(f.t, "unit"))}
		}},
		{"signed: a weaker test in our commit's name", func() []document {
			weak := f.world
			weak.file = []byte(strings.Replace(ciYML, "[pytest, -q]", `["true"]`, 1))
			weak.plan = expand(f.t, weak.file, weak.source)
			return []document{f.signed(f.signer, weak.result(f.t, "unit"))}
		}},
		result("signed: another definition", func(r *attest.TestResult) { r.Definition = some() }),
		result("signed: another plan", func(r *attest.TestResult) { r.Plan = some() }),
		result("signed: another build", func(r *attest.TestResult) { r.Build = some() }),
		result("signed: another pipeline file", func(r *attest.TestResult) { r.File = some() }),
		result("signed: another file of the repository", func(r *attest.TestResult) { r.Source.Pipeline = "evil/.ci.yml" }),
		result("signed: for another event", func(r *attest.TestResult) { r.Source.Event = pipeline.PullRequest }),
		result("signed: another test under this name", func(r *attest.TestResult) { r.Definition = f.result(f.t, "integration").Definition }),
		result("signed: another image's test", func(r *attest.TestResult) { r.Image, r.Task = "api", "api/unit" }),
		result("signed: flaky", func(r *attest.TestResult) { r.Flaky, r.Attempts = true, 2+f.rand.IntN(3) }),
		{"signed: an approval", func() []document {
			return []document{f.signed(f.signer, attest.Approval{Environment: "prod", Commit: f.source.Commit, Comment: commit(), Signed: now})}
		}},
		{"signed: where it was built", func() []document { return []document{f.signed(f.signer, f.provenance(f.t))} }},
	}
}

// flip changes one byte.
func (f *forger) flip(data []byte) []byte {
	data = bytes.Clone(data)
	data[f.rand.IntN(len(data))] ^= byte(1 + f.rand.IntN(255))
	return data
}

// cut takes bytes away at the end, or adds some.
func (f *forger) cut(data []byte) []byte {
	if f.rand.IntN(2) == 0 {
		return bytes.Clone(data[:f.rand.IntN(len(data))])
	}
	more := []string{" ", "\n", "\x00", "{}", "]", `,"a":1`}
	return append(bytes.Clone(data), more[f.rand.IntN(len(more))]...)
}

// refit makes the manifest name another bundle.
func (f *forger) refit(d document, bundle []byte) document {
	manifest := bytes.Replace(d.manifest, []byte(digest.FromBytes(d.bundle)), []byte(digest.FromBytes(bundle)), 1)
	manifest = bytes.Replace(manifest, fmt.Appendf(nil, `"size":%d}],"mediaType"`, len(d.bundle)), fmt.Appendf(nil, `"size":%d}],"mediaType"`, len(bundle)), 1)
	return document{manifest, bundle}
}

// payload rewrites what was signed and keeps the signature.
func (f *forger) payload(d document, edit func(string) string) document {
	var b struct {
		Envelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(d.bundle, &b); err != nil {
		f.t.Fatal(err)
	}
	was := base64.StdEncoding.EncodeToString(b.Envelope.Payload)
	is := base64.StdEncoding.EncodeToString([]byte(edit(string(b.Envelope.Payload))))
	if was == is {
		f.t.Fatal("nothing was rewritten")
	}
	return f.refit(d, bytes.Replace(d.bundle, []byte(was), []byte(is), 1))
}

func (f *forger) withSignature(d document, sig []byte) document {
	was := base64.StdEncoding.EncodeToString(signatureOf(f.t, d.bundle))
	return f.refit(d, bytes.Replace(d.bundle, []byte(was), []byte(base64.StdEncoding.EncodeToString(sig)), 1))
}

func signatureOf(t *testing.T, bundle []byte) []byte {
	t.Helper()
	var b struct {
		Envelope struct {
			Signatures []struct {
				Sig []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(bundle, &b); err != nil || len(b.Envelope.Signatures) != 1 {
		t.Fatalf("%v in %s", err, bundle)
	}
	return b.Envelope.Signatures[0].Sig
}

func hintOf(t *testing.T, bundle []byte) []byte {
	t.Helper()
	_, rest, ok := strings.Cut(string(bundle), `"hint":"`)
	hint, _, closed := strings.Cut(rest, `"`)
	if !ok || !closed {
		t.Fatalf("no hint in %s", bundle)
	}
	return []byte(hint)
}

func numbers(t *testing.T, sig []byte) (r, s *big.Int) {
	t.Helper()
	var v struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(sig, &v); err != nil {
		t.Fatal(err)
	}
	return v.R, v.S
}

func der(t *testing.T, r, s *big.Int) []byte {
	t.Helper()
	sig, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	if err != nil {
		t.Fatal(err)
	}
	return sig
}
