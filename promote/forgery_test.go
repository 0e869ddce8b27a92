package promote_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/attest"
	"slipway/internal/registry"
	"slipway/promote"
)

// guarded asks for two tests by listed keys; one of the keys is not in use any more.
const guardedYML = `version: 1
name: guarded
source: {repository: "file://CODE"}
images: {web: {repository: prod/web}}
gates: {branch: main, signers: [slipway.pub, ended.pub], tests: [web/unit, web/integration]}
`

// TestForgedEvidence puts forgeries into a real registry, beside the genuine
// half of what an environment asks for, and asks its gates: 1,000 of them in the
// soak. internal/attest has more kinds of forged bytes; these are also about git.
func TestForgedEvidence(t *testing.T) {
	f := newForgery(t)
	if no := f.refused(func(d ocispec.Descriptor) { f.attest("web", d, "unit", nil) }); no != "" {
		t.Fatalf("the genuine image is refused: %s", no)
	}
	n := 40
	if os.Getenv("SLIPWAY_SOAK") != "" {
		n = 1000
	}
	kinds := f.kinds()
	tried, accepted, why := make([]int, len(kinds)), make([]int, len(kinds)), make([]string, len(kinds))
	for i := range n {
		k := i % len(kinds)
		tried[k]++
		if why[k] = f.refused(kinds[k].forge); why[k] == "" {
			accepted[k]++
			t.Errorf("accepted: %s (seed %d, forgery %d)", kinds[k].name, f.seed, i)
		}
	}
	var text strings.Builder
	for k, kind := range kinds {
		fmt.Fprintf(&text, "%-44s %5d %8d   %.160s\n", kind.name, tried[k], accepted[k], why[k])
	}
	t.Logf("\n%-44s tried accepted   the gates say\n%s%d forgeries", "forgery", text.String(), n)
}

type forgery struct {
	*world
	seed    uint64
	rand    *rand.Rand
	images  int
	foreign attest.Signer // nobody lists it
	ended   attest.Signer // its time is over
	branch  attest.TestResult
	clone   attest.TestResult
}

type forgeryKind struct {
	name  string
	forge func(ocispec.Descriptor)
}

func newForgery(t *testing.T) *forgery {
	t.Helper()
	f := &forgery{world: newWorld(t), seed: uint64(time.Now().UnixNano())}
	f.rand = rand.New(rand.NewPCG(f.seed, 0))
	var err error
	f.foreign, _, err = attest.NewSigner(f.now.Add(-24*time.Hour), time.Time{})
	f.ok(err)
	f.ended, _, err = attest.NewSigner(f.now.Add(-24*time.Hour), time.Time{})
	f.ok(err)
	ended := f.ended.Key
	ended.NotAfter = f.now.Add(-time.Hour)
	f.commitEnv(map[string]string{
		"environments/guarded.yml": strings.ReplaceAll(guardedYML, "CODE", f.code), "environments/ended.pub": string(ended.Marshal()),
	})

	// A branch that nobody merged, with a weaker test; and a clone that went its own way.
	weak := strings.Replace(ciYML, "unit: {command: [unit]}", `unit: {command: ["true"]}`, 1)
	f.git(f.code, "checkout", "-qb", "evil")
	f.commit(".ci.yml", weak)
	f.branch = f.result("web", "unit")
	f.git(f.code, "checkout", "-q", "main")
	clone := filepath.Join(t.TempDir(), "clone")
	f.git(f.code, "clone", "-q", f.code, clone)
	ours := f.code
	f.code = clone
	f.commit(".ci.yml", weak)
	f.clone = f.result("web", "unit")
	f.code = ours
	return f
}

// refused makes an image with everything but the result of "unit", which forge
// puts there, and says what the gates have against it.
func (f *forgery) refused(forge func(ocispec.Descriptor)) string {
	f.t.Helper()
	f.images++
	d := f.image("web", fmt.Sprint("forged ", f.images))
	f.attest("web", d, "integration", nil)
	forge(d)
	plan := f.plan("guarded", promote.Wanted{Name: "web", Digest: d.Digest})
	if plan.Table.Open() {
		return ""
	}
	var all []string
	for _, row := range plan.Table.Rows {
		if !row.Passed {
			all = append(all, row.Missing)
		}
	}
	return strings.Join(all, "; ")
}

func (f *forgery) kinds() []forgeryKind {
	result := func(name string, edit func(*attest.TestResult)) forgeryKind {
		return forgeryKind{name, func(d ocispec.Descriptor) { f.attest("web", d, "unit", edit) }}
	}
	by := func(name string, s func() attest.Signer) forgeryKind {
		return forgeryKind{name, func(d ocispec.Descriptor) { f.sign(s(), "web", d, f.result("web", "unit")) }}
	}
	some := func() digest.Digest { return digest.FromString(fmt.Sprint(f.rand.Uint64())) }
	return []forgeryKind{
		{"nothing: the image was only tagged again", func(ocispec.Descriptor) {}},
		{"bundle: a byte changed", f.flipped},
		{"result: FAILED rewritten to PASSED", f.rewritten},
		{"subject: another image's proof", f.moved},
		by("key: that nobody lists", func() attest.Signer { return f.foreign }),
		by("key: whose time is over", func() attest.Signer { return f.ended }),
		by("key: of somebody who may approve", func() attest.Signer { return f.ann }),
		result("signed: FAILED", func(r *attest.TestResult) { r.Passed = false }),
		{"signed: PASSED, then FAILED", func(d ocispec.Descriptor) {
			f.attest("web", d, "unit", nil)
			f.attest("web", d, "unit", func(r *attest.TestResult) { r.Passed = false })
		}},
		{"signed: a commit of an unmerged branch", func(d ocispec.Descriptor) { f.sign(f.signer, "web", d, f.branch) }},
		{"signed: in another repository", func(d ocispec.Descriptor) { f.sign(f.signer, "web", d, f.clone) }},
		result("signed: another repository's commit as ours", func(r *attest.TestResult) {
			ours := r.Source.Repository
			*r = f.clone
			r.Source.Repository = ours
		}),
		result("signed: the unmerged test in main's name", func(r *attest.TestResult) {
			main := r.Source
			*r = f.branch
			r.Source = main
		}),
		result("signed: a weaker definition", func(r *attest.TestResult) { r.Definition = some() }),
		result("signed: another build", func(r *attest.TestResult) { r.Build = some() }),
		result("signed: another plan", func(r *attest.TestResult) { r.Plan = some() }),
		result("signed: another pipeline file", func(r *attest.TestResult) { r.Source.Pipeline = "evil.yml" }),
		result("signed: another image's test", func(r *attest.TestResult) { *r = f.result("api", "unit") }),
		result("signed: flaky", func(r *attest.TestResult) { r.Flaky, r.Attempts = true, 2 }),
		result("signed: tomorrow", func(r *attest.TestResult) { r.Signed = f.now.Add(time.Hour) }),
	}
}

// made signs a result about an image without attaching it.
func (f *forgery) made(d ocispec.Descriptor, edit func(*attest.TestResult)) attest.Attestation {
	f.t.Helper()
	r := f.result("web", "unit")
	edit(&r)
	a, err := f.signer.Attest(f.t.Context(), d, r)
	f.ok(err)
	return a
}

// put hands documents to the registry as they are.
func (f *forgery) put(a attest.Attestation, manifest, bundle []byte) {
	f.t.Helper()
	manifest = bytes.Replace(manifest, []byte(digest.FromBytes(a.Bundle)), []byte(digest.FromBytes(bundle)), 1)
	repo := f.repo("web")
	config, empty := attest.EmptyConfig()
	f.ok(registry.PutBytes(f.t.Context(), repo, config, empty))
	layer := ocispec.Descriptor{MediaType: attest.MediaType, Digest: digest.FromBytes(bundle), Size: int64(len(bundle))}
	f.ok(registry.PutBytes(f.t.Context(), repo, layer, bundle))
	d := a.Descriptor
	d.Digest, d.Size = digest.FromBytes(manifest), int64(len(manifest))
	f.ok(repo.PutManifest(f.t.Context(), d, manifest))
}

func (f *forgery) flipped(d ocispec.Descriptor) {
	a := f.made(d, func(*attest.TestResult) {})
	bundle := bytes.Clone(a.Bundle)
	bundle[f.rand.IntN(len(bundle))] ^= byte(1 + f.rand.IntN(255))
	f.put(a, a.Manifest, bundle)
}

// rewritten turns a signed FAILED over; the text is as long as before.
func (f *forgery) rewritten(d ocispec.Descriptor) {
	a := f.made(d, func(r *attest.TestResult) { r.Passed = false })
	var b struct {
		Envelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	f.ok(json.Unmarshal(a.Bundle, &b))
	passed := strings.NewReplacer("FAILED", "PASSED", `"passedTests":[]`, `"passedTests":["unit"]`, `"failedTests":["unit"]`, `"failedTests":[]`).Replace(string(b.Envelope.Payload))
	base64d := func(s []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(s)) }
	f.put(a, a.Manifest, bytes.Replace(a.Bundle, base64d(b.Envelope.Payload), base64d([]byte(passed)), 1))
}

// moved hangs the proof of one image on another.
func (f *forgery) moved(d ocispec.Descriptor) {
	f.images++
	other := f.image("web", fmt.Sprint("tested ", f.images+1e6))
	a := f.made(other, func(*attest.TestResult) {})
	manifest := bytes.ReplaceAll(a.Manifest, []byte(other.Digest), []byte(d.Digest))
	manifest = bytes.ReplaceAll(manifest, fmt.Appendf(nil, `"size":%d}}`, other.Size), fmt.Appendf(nil, `"size":%d}}`, d.Size))
	f.put(a, manifest, a.Bundle)
}
