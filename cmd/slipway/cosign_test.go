package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/attest"
	"slipway/internal/need"
	"slipway/internal/registry"
	"slipway/internal/registry/endpoint"
	"slipway/internal/registry/local"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestCosign has stock cosign check what a run has signed, and what was
// tampered with. testdata/cosign.txt is what it says.
func TestCosign(t *testing.T) {
	cosign := need.Tool(t, "cosign")
	c := newCosignBench(t, cosign)
	const result, policy = "https://in-toto.io/attestation/test-result/v0.1", "--policy=passed.cue"
	c.write(t, "../passed.cue", "predicate: result: \"PASSED\"\n")

	c.copied("shop/web", registry.CopyOptions{})
	c.says("what a run has signed", 0, "root.pub", result, "shop/web")
	c.says("the same, which must be PASSED", 0, "root.pub", result, "shop/web", policy)
	c.write(t, "../nobody.json", `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)
	c.says("the same, with a root that trusts nobody, which version 2 asks for", 0, "root.pub", result, "shop/web", "--trusted-root=nobody.json")
	c.says("where it was built", 0, "root.pub", "https://slsa.dev/provenance/v1", "shop/web")
	c.says("another key", 1, "alice.pub", result, "shop/web")

	c.copied("shop/bare", registry.CopyOptions{NoReferrers: true})
	c.says("the image without its proofs", 1, "root.pub", result, "shop/bare")

	c.copied("shop/approved", registry.CopyOptions{NoReferrers: true})
	c.attach("shop/approved", c.sign("alice", attest.Approval{Environment: "prod", Commit: strings.Repeat("0", 40), Comment: "go", Signed: c.now}))
	c.says("an approval", 0, "alice.pub", attest.ApprovalType, "shop/approved")
	c.says("an approval is no test", 1, "alice.pub", result, "shop/approved")

	genuine := c.genuine(result)
	failed := genuine.Verified.Predicate.(attest.TestResult)
	failed.Passed, failed.ReusedFrom, failed.Signed = false, "", c.now
	c.copied("shop/failed", registry.CopyOptions{NoReferrers: true})
	c.attach("shop/failed", c.sign("alice", failed))
	c.says("a FAILED, which is genuine too", 0, "alice.pub", result, "shop/failed")
	c.says("a FAILED, which must be PASSED", 1, "alice.pub", result, "shop/failed", policy)

	c.copied("shop/tampered", registry.CopyOptions{NoReferrers: true})
	c.attach("shop/tampered", rewritten(t, genuine, "unit", "unot"))
	c.says("a rewritten payload", 1, "root.pub", result, "shop/tampered")

	c.copied("shop/moved", registry.CopyOptions{NoReferrers: true})
	c.attach("shop/moved", c.moved(failed))
	c.says("another image's proof", 1, "alice.pub", result, "shop/moved")

	golden(t, "testdata/cosign.txt", c.transcript.String())
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != got {
		t.Errorf("%s (%v) is not\n%s", file, err, got)
	}
}

// cosignBench is an image that a run has signed, and a registry to put it in.
type cosignBench struct {
	place
	t          *testing.T
	cosign     string
	host       string
	registries registry.Registries
	image      ocispec.Descriptor
	now        time.Time
	transcript strings.Builder
}

func newCosignBench(t *testing.T, cosign string) *cosignBench {
	t.Helper()
	served, err := local.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { served.Close() })
	server := httptest.NewServer(endpoint.New(endpoint.Options{Store: served}))
	t.Cleanup(server.Close)
	c := &cosignBench{place: newPlace(t), t: t, cosign: cosign, host: strings.TrimPrefix(server.URL, "http://")}
	c.write(t, ".ci.yml", "version: 1\nimages: {web: {build: ., tests: {unit: {command: [\"true\"]}}}}\n")
	c.write(t, "Dockerfile", "FROM example.com/base:1\nLABEL a=b\n")
	c.must(t, "keys", "generate")
	c.must(t, "keys", "generate", "--out", filepath.Join(c.dir, "../alice"))
	c.write(t, "../root.pub", string(c.must(t, "keys", "export")))
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A"}, {"-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "first"}} {
		if out, err := exec.Command("git", append([]string{"-C", c.dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	run := c.run(t)
	if len(run.Images) != 1 || run.Unsigned != "" || run.Images[0].Tests[0].Attestation == "" {
		t.Fatalf("nothing is signed: %+v", run)
	}
	store, err := local.Open(imageStore(c.root))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	c.now = time.Now().UTC().Truncate(time.Second)
	c.registries = registry.Registries{Local: store, Options: func(string) registry.Options { return registry.Options{Insecure: true} }}
	t.Cleanup(c.registries.Close)
	if c.image, err = c.repository("web").Resolve(t.Context(), run.Images[0].Digest); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cosignBench) repository(name string) registry.Repository {
	c.t.Helper()
	if strings.Contains(name, "/") {
		name = c.host + "/" + name
	}
	repo, err := c.registries.Repository(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return repo
}

// copied puts the image into a repository of the registry.
func (c *cosignBench) copied(to string, o registry.CopyOptions) {
	c.t.Helper()
	if _, err := registry.Copy(c.t.Context(), c.repository("web"), c.image, c.repository(to), o); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cosignBench) attach(to string, a attest.Attestation) {
	c.t.Helper()
	if err := attach(c.t.Context(), c.repository(to), a); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cosignBench) sign(key string, p attest.Predicate) attest.Attestation {
	c.t.Helper()
	return c.about(key, c.image, p)
}

func (c *cosignBench) about(key string, image ocispec.Descriptor, p attest.Predicate) attest.Attestation {
	c.t.Helper()
	name := filepath.Join(c.dir, "..", key)
	s, err := attest.ReadSigner(name, name+".pub")
	if err != nil {
		c.t.Fatal(err)
	}
	a, err := s.Attest(context.Background(), image, p)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

// genuine is what the run signed.
func (c *cosignBench) genuine(kind string) attest.Attestation {
	c.t.Helper()
	key, err := attest.ReadKey(filepath.Join(c.dir, "../root.pub"))
	if err != nil {
		c.t.Fatal(err)
	}
	found, err := attestations(c.t.Context(), c.repository("web"), c.image, []attest.Key{key}, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, v := range found.Good {
		if v.Predicate.Type() != kind {
			continue
		}
		d, _, err := c.repository("web").Manifest(c.t.Context(), v.Digest)
		if err != nil {
			c.t.Fatal(err)
		}
		manifest, bundle, err := fetch(c.t.Context(), c.repository("web"), d)
		if err != nil {
			c.t.Fatal(err)
		}
		return attest.Attestation{Descriptor: d, Manifest: manifest, Bundle: bundle, Verified: v}
	}
	c.t.Fatalf("no %s among %+v", kind, found)
	return attest.Attestation{}
}

// moved is a good proof of another image whose manifest says that it is of this.
func (c *cosignBench) moved(p attest.Predicate) attest.Attestation {
	other := ocispec.Descriptor{MediaType: c.image.MediaType, Digest: digest.FromString("another"), Size: c.image.Size}
	a := c.about("alice", other, p)
	return refitted(a, bytes.Replace(a.Manifest, []byte(other.Digest), []byte(c.image.Digest), 1), a.Bundle)
}

// rewritten has a word in its payload replaced, and a manifest that fits.
func rewritten(t *testing.T, a attest.Attestation, from, to string) attest.Attestation {
	t.Helper()
	var b struct {
		Envelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(a.Bundle, &b); err != nil {
		t.Fatal(err)
	}
	text := func(payload []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(payload)) }
	bundle := bytes.Replace(a.Bundle, text(b.Envelope.Payload), text(bytes.ReplaceAll(b.Envelope.Payload, []byte(from), []byte(to))), 1)
	if bytes.Equal(bundle, a.Bundle) {
		t.Fatal("nothing was rewritten")
	}
	return refitted(a, bytes.Replace(a.Manifest, []byte(digest.FromBytes(a.Bundle)), []byte(digest.FromBytes(bundle)), 1), bundle)
}

func refitted(a attest.Attestation, manifest, bundle []byte) attest.Attestation {
	a.Manifest, a.Bundle = manifest, bundle
	a.Descriptor.Digest, a.Descriptor.Size = digest.FromBytes(manifest), int64(len(manifest))
	return a
}

var (
	anyDigest = regexp.MustCompile(`[0-9a-f]{64}`)
	payload   = regexp.MustCompile(`(?m)^\{"payload.*$`)
)

// says runs cosign and notes what it says and how it ends.
func (c *cosignBench) says(what string, want int, key, kind, repository string, more ...string) {
	c.t.Helper()
	args := append([]string{"verify-attestation", "--key=" + key, "--insecure-ignore-tlog=true", "--type=" + kind}, more...)
	cmd := exec.Command(c.cosign, append(args, c.host+"/"+repository+"@"+c.image.Digest.String())...)
	cmd.Dir, cmd.Env = filepath.Join(c.dir, ".."), append(os.Environ(), "HOME="+c.t.TempDir())
	out, err := cmd.CombinedOutput()
	code := cmd.ProcessState.ExitCode()
	if code != want {
		c.t.Errorf("%s: exit code %d, want %d (%v)\n%s", what, code, want, err, out)
	}
	text := payload.ReplaceAllString(strings.ReplaceAll(string(out), c.host, "registry.example"), "(the signed statement)")
	text = anyDigest.ReplaceAllString(text, "…")
	fmt.Fprintf(&c.transcript, "# %s\n$ cosign %s registry.example/%s@sha256:…\n%sexit code %d\n\n", what, strings.Join(args, " "), repository, text, code)
}
