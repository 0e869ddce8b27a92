package attest_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/attest"
	"slipway/internal/need"
)

// TestClaims: what was signed is what is read.
func TestClaims(t *testing.T) {
	w := newWorld(t)
	full := w.result(t, "integration")
	full.Fixtures, full.ReusedFrom, full.Flaky, full.Attempts, full.URL = digest.FromString("rows"), "run1", true, 2, "https://ci.example/runs/1?a=<b>&c"
	full.Matrix, full.Supersedes = map[string]string{"python": "3.12"}, []digest.Digest{digest.FromString("failed")}
	failed := w.result(t, "unit")
	failed.Passed, failed.Services = false, nil
	build := w.provenance(t)
	build.Cached, build.Target, build.Platforms, build.Source.Ref, build.Source.Event = true, "prod", []string{"linux/amd64"}, "", ""
	for _, p := range []attest.Predicate{
		full, failed, w.provenance(t), build,
		attest.Approval{Environment: "prod", Commit: w.source.Commit, Comment: "Grüße <alice> & \"bob\"\n", Signed: now},
		attest.Approval{Environment: "prod", Promotion: "p1", Commit: w.source.Commit, Signed: now},
		attest.BreakGlass{Environment: "prod", Promotion: "p1", Gates: []string{"soak", "freeze"}, Reason: "the shop is down", Signed: now},
	} {
		a := w.sign(t, w.signer, p)
		v, err := w.verify(a)
		if err != nil {
			t.Errorf("%T: %v", p, err)
			continue
		}
		if !reflect.DeepEqual(v.Predicate, p) {
			t.Errorf("got %+v, want %+v", v.Predicate, p)
		}
		if v.Digest != a.Descriptor.Digest || v.Digest != digest.FromBytes(a.Manifest) || v.Subject != w.subject.Digest || !v.Key.Equal(w.signer.Key) || !v.Signed.Equal(now) {
			t.Errorf("%T: verified as %+v", p, v)
		}
		layer, err := attest.Layer(a.Manifest)
		if err != nil || layer.Digest != digest.FromBytes(a.Bundle) || layer.Size != int64(len(a.Bundle)) {
			t.Errorf("%T: layer %+v, %v", p, layer, err)
		}
	}
}

// TestSignRefuses what could not be verified afterwards.
func TestSignRefuses(t *testing.T) {
	w := newWorld(t)
	bad := w.result(t, "unit")
	bad.Test = "un\xffit"
	nowhere := w.result(t, "unit")
	nowhere.Source.Commit = "main"
	late := w.result(t, "unit")
	late.Signed = now.Add(2 * time.Hour)
	twice := w.result(t, "unit")
	twice.Passed, twice.Supersedes = false, []digest.Digest{digest.FromString("x")}
	for name, p := range map[string]attest.Predicate{
		"not UTF-8": bad, "no commit": nowhere, "after its key's time": late, "failed and superseding": twice,
		"no reason":          attest.BreakGlass{Environment: "prod", Promotion: "p", Gates: []string{"soak"}, Signed: now},
		"no commit approved": attest.Approval{Environment: "prod", Signed: now},
	} {
		if a, err := w.signer.Attest(t.Context(), w.subject, p); err == nil {
			t.Errorf("%s was signed: %s", name, a.Bundle)
		}
	}
	if _, err := w.signer.Attest(t.Context(), ocispec.Descriptor{Digest: "latest"}, w.result(t, "unit")); err == nil {
		t.Error("a tag was signed")
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	a := w.sign(t, w.signer, w.result(t, "unit"))
	other := w.subject
	other.Digest = digest.FromString("another")
	foreign := newSigner(t)
	ended := w.signer.Key
	ended.NotAfter = now.Add(-time.Minute)
	unborn := w.signer.Key
	unborn.NotBefore = now.Add(time.Minute)
	edit := func(data []byte, from, to string) []byte {
		if !strings.Contains(string(data), from) {
			t.Fatalf("no %s in %s", from, data)
		}
		return []byte(strings.Replace(string(data), from, to, 1))
	}
	sub := func(manifest, bundle []byte) (attest.Verified, error) {
		return attest.Verify(w.subject, manifest, bundle, w.keys(), now)
	}
	for _, c := range []struct {
		name string
		want error
		try  func() (attest.Verified, error)
	}{
		{"another image", attest.ErrOtherSubject, func() (attest.Verified, error) { return attest.Verify(other, a.Manifest, a.Bundle, w.keys(), now) }},
		{"another key listed", attest.ErrUnlisted, func() (attest.Verified, error) {
			return attest.Verify(w.subject, a.Manifest, a.Bundle, []attest.Key{foreign.Key}, now)
		}},
		{"no key listed", attest.ErrUnlisted, func() (attest.Verified, error) { return attest.Verify(w.subject, a.Manifest, a.Bundle, nil, now) }},
		{"key ended before", attest.ErrOutsideWindow, func() (attest.Verified, error) {
			return attest.Verify(w.subject, a.Manifest, a.Bundle, []attest.Key{ended}, now)
		}},
		{"key began after", attest.ErrOutsideWindow, func() (attest.Verified, error) {
			return attest.Verify(w.subject, a.Manifest, a.Bundle, []attest.Key{unborn}, now)
		}},
		{"signed in the future", attest.ErrOutsideWindow, func() (attest.Verified, error) {
			return attest.Verify(w.subject, a.Manifest, a.Bundle, w.keys(), now.Add(-time.Hour))
		}},
		{"key twice in the bundle", attest.ErrMalformed, func() (attest.Verified, error) {
			return sub(a.Manifest, edit(a.Bundle, `"mediaType":`, `"mediaType":"x","mediaType":`))
		}},
		{"key of other case", attest.ErrMalformed, func() (attest.Verified, error) { return sub(a.Manifest, edit(a.Bundle, `"payload":`, `"Payload":`)) }},
		{"unknown key", attest.ErrMalformed, func() (attest.Verified, error) { return sub(a.Manifest, edit(a.Bundle, `{"dsse`, `{"a":1,"dsse`)) }},
		{"a space", attest.ErrMalformed, func() (attest.Verified, error) { return sub(a.Manifest, edit(a.Bundle, `,`, ` ,`)) }},
		{"trailing data", attest.ErrMalformed, func() (attest.Verified, error) { return sub(a.Manifest, append([]byte(string(a.Bundle)), "{}"...)) }},
		{"two signatures", attest.ErrMalformed, func() (attest.Verified, error) {
			return sub(a.Manifest, edit(a.Bundle, `[{"sig":"`, `[{"sig":"AAAA"},{"sig":"`))
		}},
		{"no signature", attest.ErrMalformed, func() (attest.Verified, error) {
			from := strings.Index(string(a.Bundle), `[{"sig"`)
			to := strings.Index(string(a.Bundle), `]}`)
			return sub(a.Manifest, edit(a.Bundle, string(a.Bundle[from:to+1]), `[]`))
		}},
		{"other payload type", attest.ErrMalformed, func() (attest.Verified, error) { return sub(a.Manifest, edit(a.Bundle, `vnd.in-toto`, `vnd.in-tofu`)) }},
		{"too long", attest.ErrMalformed, func() (attest.Verified, error) { return sub(a.Manifest, make([]byte, attest.MaxBundle+1)) }},
		{"other annotation", attest.ErrMalformed, func() (attest.Verified, error) {
			return sub(edit(a.Manifest, `test-result/v0.1`, `test-result/v0.2`), a.Bundle)
		}},
		{"other time", attest.ErrMalformed, func() (attest.Verified, error) { return sub(edit(a.Manifest, `2026-11-25`, `2026-11-26`), a.Bundle) }},
		{"other manifest", attest.ErrMalformed, func() (attest.Verified, error) { return sub([]byte("{}"), a.Bundle) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := c.try()
			var refusal *attest.Refusal
			if !errors.Is(err, c.want) || !errors.As(err, &refusal) || v.Predicate != nil {
				t.Errorf("got %v, %v; want %v", v, err, c.want)
			}
		})
	}
}

// TestCommandSigner signs with openssl, as a key in a hardware module would be used.
func TestCommandSigner(t *testing.T) {
	need.Tool(t, "openssl")
	w := newWorld(t)
	dir := t.TempDir()
	s, private, err := attest.NewSigner(now, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "k")
	if err := attest.WritePair(name, s.Key, private); err != nil {
		t.Fatal(err)
	}
	keys := []attest.Key{s.Key}
	for _, script := range []string{`exec openssl dgst -sha256 -sign "$0"`, `openssl dgst -sha256 -sign "$0" | base64`} {
		signer := attest.CommandSigner([]string{"sh", "-c", script, name}, s.Key)
		for range 8 { // half of what openssl makes is of the higher form
			a, err := signer.Attest(t.Context(), w.subject, w.result(t, "unit"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := attest.Verify(w.subject, a.Manifest, a.Bundle, keys, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	for script, want := range map[string]string{
		"echo no card in the reader >&2; exit 3": "no card in the reader",
		"echo hello":                             "not an ASN.1 ECDSA",
		"cat":                                    "not an ASN.1 ECDSA",
	} {
		_, err := attest.CommandSigner([]string{"sh", "-c", script}, s.Key).Attest(t.Context(), w.subject, w.result(t, "unit"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", script, err)
		}
	}
	// Another key's signature must not leave the house.
	_, err = attest.CommandSigner([]string{"openssl", "dgst", "-sha256", "-sign", name}, w.signer.Key).Attest(t.Context(), w.subject, w.result(t, "unit"))
	if !errors.Is(err, attest.ErrBadSignature) {
		t.Errorf("a signature of another key: %v", err)
	}
	// What stock openssl says about our file of a public key.
	if out, err := exec.Command("openssl", "pkey", "-pubin", "-in", name+".pub", "-noout", "-text").CombinedOutput(); err != nil || !strings.Contains(string(out), "P-256") {
		t.Errorf("openssl reads the public key as %s (%v)", out, err)
	}
}

// FuzzVerify: nothing verifies but what was signed, and nothing makes it panic.
// The key is always the same one: every worker of the fuzzer makes its own world.
func FuzzVerify(f *testing.F) {
	private, err := os.ReadFile("testdata/fuzz.key")
	if err != nil {
		f.Fatal(err)
	}
	w := newWorld(f)
	if w.signer, err = attest.ParseSigner(private, nil); err != nil {
		f.Fatal(err)
	}
	claims := []attest.Predicate{
		w.result(f, "unit"), w.provenance(f),
		attest.Approval{Environment: "prod", Commit: w.source.Commit, Signed: now},
		attest.BreakGlass{Environment: "prod", Promotion: "p", Gates: []string{"soak"}, Reason: "r", Signed: now},
	}
	for _, p := range claims {
		a := w.sign(f, w.signer, p)
		f.Add(a.Manifest, a.Bundle)
	}
	f.Fuzz(func(t *testing.T, manifest, bundle []byte) {
		_, _ = attest.Layer(manifest)
		v, err := attest.Verify(w.subject, manifest, bundle, w.keys(), now)
		if err == nil && !slices.ContainsFunc(claims, func(p attest.Predicate) bool { return reflect.DeepEqual(p, v.Predicate) }) {
			t.Errorf("a forgery: %s %s", manifest, bundle)
		}
	})
}

// FuzzParseKey: what is read is written again as the same key with the same time.
func FuzzParseKey(f *testing.F) {
	s, _, err := attest.NewSigner(now, now.Add(time.Hour))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Key.Marshal())
	f.Add([]byte("# not-after: 2026-01-01T00:00:00Z\n" + string(attest.Key{Public: s.Key.Public}.Marshal())))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := attest.ParseKey(data)
		if err != nil {
			return
		}
		again, err := attest.ParseKey(k.Marshal())
		if err != nil || !again.Equal(k) || !again.NotBefore.Equal(k.NotBefore.Truncate(time.Second)) || !again.NotAfter.Equal(k.NotAfter.Truncate(time.Second)) {
			t.Errorf("%s was read as %+v and written as %s (%v)", data, k, k.Marshal(), err)
		}
	})
}
