package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/need"
	"slipway/internal/registry/endpoint"
	"slipway/internal/registry/local"
	"slipway/internal/registry/manifest"
)

// places are the implementations of Repository: each gives repositories of one
// fresh store or registry: ours, or Debian's, which is of before the referrers API.
func places() map[string]func(t *testing.T) func(name string) Repository {
	return map[string]func(t *testing.T) func(string) Repository{
		"local store":     localPlace,
		"endpoint":        endpointPlace,
		"docker-registry": distributionPlace,
	}
}

func localPlace(t *testing.T) func(string) Repository {
	t.Helper()
	return opener(t, &Registries{Local: openStore(t)}, "")
}

func openStore(t *testing.T) *local.Store {
	t.Helper()
	s, err := local.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func endpointPlace(t *testing.T) func(string) Repository {
	t.Helper()
	s := httptest.NewServer(endpoint.New(endpoint.Options{Store: openStore(t)}))
	t.Cleanup(s.Close)
	return opener(t, connect(fast()), strings.TrimPrefix(s.URL, "http://")+"/")
}

// distributionPlace starts a registry of before 2021, of which many are in use.
func distributionPlace(t *testing.T) func(string) Repository {
	t.Helper()
	program := need.Tool(t, "docker-registry")
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	host := l.Addr().String()
	must(t, l.Close())
	config := filepath.Join(dir, "config.yml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", dir, host), 0o600))
	cmd := exec.Command(program, "serve", config)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for {
		resp, err := http.Get("http://" + host + "/v2/") //nolint:noctx // the test's own end ends it
		if err == nil {
			must(t, resp.Body.Close())
			break
		}
		if t.Context().Err() != nil || cmd.ProcessState != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return opener(t, connect(fast()), host+"/")
}

func opener(t *testing.T, all *Registries, prefix string) func(string) Repository {
	t.Helper()
	t.Cleanup(all.Close)
	return func(name string) Repository {
		r, err := all.Repository(prefix + name)
		must(t, err)
		return r
	}
}

func TestRepositories(t *testing.T) {
	for name, open := range places() {
		t.Run(name, func(t *testing.T) {
			t.Run("image", func(t *testing.T) { testImage(t, open(t)) })
			t.Run("missing", func(t *testing.T) { testMissing(t, open(t)) })
			t.Run("refused", func(t *testing.T) { testRefused(t, open(t)) })
			t.Run("referrers", func(t *testing.T) { testReferrers(t, open(t)) })
			t.Run("many attach at once", func(t *testing.T) { testManyAttach(t, open(t)) })
		})
		for target, openTarget := range places() {
			t.Run("copy from "+name+" to "+target, func(t *testing.T) { testCopy(t, open(t), openTarget(t)) })
		}
		t.Run("copy within "+name, func(t *testing.T) {
			at := open(t)
			testCopy(t, at, at)
		})
	}
}

// push puts an image of one layer and its config there.
func push(t *testing.T, r Repository, layers ...string) ocispec.Descriptor {
	t.Helper()
	s := store{}
	d := s.image(t, "amd64", layers...)
	_, err := Push(t.Context(), s.blobs, d, r, CopyOptions{})
	must(t, err)
	return d
}

func testImage(t *testing.T, at func(string) Repository) {
	r := at("team/app")
	s := store{}
	d := s.index(t, "amd64", "arm64")
	_, err := Push(t.Context(), s.blobs, d, r, CopyOptions{})
	must(t, err)
	must(t, r.Tag(t.Context(), "v1", d.Digest))
	must(t, r.Tag(t.Context(), "v2", d.Digest))
	for _, ref := range []string{"v1", d.Digest.String()} {
		got, err := r.Resolve(t.Context(), ref)
		if err != nil || got.Digest != d.Digest || got.MediaType != d.MediaType || got.Size != d.Size {
			t.Errorf("%s is %+v, %v", ref, got, err)
		}
	}
	got, doc, err := r.Manifest(t.Context(), d.Digest)
	if err != nil || !bytes.Equal(doc, s[d.Digest]) || got.Digest != d.Digest {
		t.Errorf("manifest %+v %q, %v", got, doc, err)
	}
	// Everything that the index names comes back as it was, and is known to be there.
	must(t, walk(t.Context(), r.Blob, d, func(p ocispec.Descriptor, _ []byte) error {
		b, err := Read(t.Context(), r, p)
		if !bytes.Equal(b, s[p.Digest]) {
			t.Errorf("%s came back as %d bytes, %v", p.Digest, len(b), err)
		}
		if ok, err := r.Has(t.Context(), p); !ok || err != nil {
			t.Errorf("has %s: %v, %v", p.Digest, ok, err)
		}
		return nil
	}))
	tags, err := r.Tags(t.Context())
	must(t, err)
	if fmt.Sprint(tags) != "[v1 v2]" {
		t.Errorf("tags %v", tags)
	}
	other := push(t, r, "other")
	must(t, r.Tag(t.Context(), "v2", other.Digest))
	if got, err := r.Resolve(t.Context(), "v2"); err != nil || got.Digest != other.Digest {
		t.Errorf("v2 did not move: %v, %v", got, err)
	}
}

func testMissing(t *testing.T, at func(string) Repository) {
	r := at("team/app")
	push(t, r, "one")
	none := digest.FromString("none")
	_, err1 := r.Resolve(t.Context(), "none")
	_, err2 := r.Resolve(t.Context(), none.String())
	_, _, err3 := r.Manifest(t.Context(), none)
	_, err4 := r.Blob(t.Context(), ocispec.Descriptor{Digest: none, Size: 4})
	_, err5 := Copy(t.Context(), r, ocispec.Descriptor{Digest: none}, at("prod/app"), CopyOptions{})
	for i, err := range []error{err1, err2, err3, err4, err5} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d: %v is not fs.ErrNotExist", i+1, err)
		}
	}
	for _, kind := range []string{"", ocispec.MediaTypeImageManifest} {
		if ok, err := r.Has(t.Context(), ocispec.Descriptor{MediaType: kind, Digest: none}); ok || err != nil {
			t.Errorf("has %q: %v, %v", kind, ok, err)
		}
	}
	if all, err := r.Referrers(t.Context(), none, ""); len(all) > 0 || err != nil {
		t.Errorf("referrers of nothing: %v, %v", all, err)
	}
}

func testRefused(t *testing.T, at func(string) Repository) {
	r := at("team/app")
	wrong := ocispec.Descriptor{MediaType: "x/y", Digest: digest.FromString("right"), Size: 5}
	if err := r.PutBlob(t.Context(), wrong, bytesOf("wrong")); err == nil {
		t.Error("a blob with another digest was taken")
	}
	if ok, _ := r.Has(t.Context(), ocispec.Descriptor{Digest: wrong.Digest}); ok {
		t.Error("a blob with another digest is there")
	}
	for _, d := range []digest.Digest{"", "sha256:../../x", "sha256:" + digest.Digest(strings.Repeat("A", 64)), "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		_, _, err1 := r.Manifest(t.Context(), d)
		_, err2 := r.Blob(t.Context(), ocispec.Descriptor{Digest: d})
		_, err3 := r.Has(t.Context(), ocispec.Descriptor{Digest: d})
		_, err4 := r.Referrers(t.Context(), d, "")
		err5 := r.PutBlob(t.Context(), ocispec.Descriptor{Digest: d}, bytesOf(""))
		for i, err := range []error{err1, err2, err3, err4, err5} {
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q, call %d: %v", d, i+1, err)
			}
		}
	}
	if err := r.PutManifest(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("{}"), Size: 2}, []byte("{}")); err == nil {
		t.Error("an empty manifest was taken")
	}
}

func bytesOf(s string) Blobs {
	return func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(s)), nil
	}
}

func attach(t *testing.T, r Repository, to ocispec.Descriptor, kind, data string) ocispec.Descriptor {
	t.Helper()
	d, err := Attach(t.Context(), r, Artifact{Subject: to, Type: kind, Data: []byte(data), Annotations: map[string]string{"note": data}})
	must(t, err)
	return d
}

func testReferrers(t *testing.T, at func(string) Repository) {
	r := at("team/app")
	d := push(t, r, "one")
	proof := attach(t, r, d, "application/vnd.example.proof", "passed")
	if again := attach(t, r, d, "application/vnd.example.proof", "passed"); again.Digest != proof.Digest {
		t.Errorf("the same artifact became %s", again.Digest)
	}
	attach(t, r, d, "application/vnd.example.other", "else")
	attach(t, r, push(t, r, "two"), "application/vnd.example.proof", "of another image")
	all, err := r.Referrers(t.Context(), d.Digest, "")
	must(t, err)
	if len(all) != 2 {
		t.Errorf("%d referrers: %+v", len(all), all)
	}
	some, err := r.Referrers(t.Context(), d.Digest, "application/vnd.example.proof")
	must(t, err)
	if len(some) != 1 || some[0].Digest != proof.Digest || some[0].Size != proof.Size || some[0].ArtifactType != proof.ArtifactType ||
		some[0].MediaType != ocispec.MediaTypeImageManifest || some[0].Annotations["note"] != "passed" {
		t.Fatalf("referrers %+v, want %+v", some, proof)
	}
	doc, err := Read(t.Context(), r, some[0])
	must(t, err)
	m, err := manifest.Parse(some[0].MediaType, doc)
	must(t, err)
	data, err := Read(t.Context(), r, m.Layers[0])
	if err != nil || string(data) != "passed" || m.Subject.Digest != d.Digest {
		t.Errorf("the proof says %q of %s, %v", data, m.Subject.Digest, err)
	}
}

func testManyAttach(t *testing.T, at func(string) Repository) {
	const many = 20
	r := at("team/app")
	d := push(t, r, "one")
	attach(t, r, d, "application/y", "the first brings the empty config") // Docker's registry loses a blob for a moment that several send at once
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			if _, err := Attach(t.Context(), r, Artifact{Subject: d, Type: "application/x", Data: fmt.Append(nil, i)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got, err := r.Referrers(t.Context(), d.Digest, "application/x")
	if err != nil || len(got) != many {
		t.Errorf("%d of %d referrers are there, %v", len(got), many, err)
	}
}

// testCopy copies an index with proofs on it, on one of its manifests and on a
// proof; then a new proof travels alone.
func testCopy(t *testing.T, at, target func(string) Repository) {
	from, to := at("test/app"), target("prod/app")
	s := store{}
	d := s.index(t, "amd64", "arm64")
	_, err := Push(t.Context(), s.blobs, d, from, CopyOptions{})
	must(t, err)
	children, err := childrenOf(d, s[d.Digest])
	must(t, err)
	proof := attach(t, from, d, "application/x", "on the index")
	attach(t, from, children[0], "application/x", "on the amd64 manifest")
	attach(t, from, proof, "application/y", "on the proof")

	got, err := Copy(t.Context(), from, ocispec.Descriptor{Digest: d.Digest}, to, CopyOptions{})
	must(t, err)
	if got.Digest != d.Digest || got.Blobs != 8+3*2+1 || got.Referrers != 3 {
		t.Errorf("copied %+v", got)
	}
	must(t, walk(t.Context(), to.Blob, d, func(p ocispec.Descriptor, _ []byte) error {
		if b, err := Read(t.Context(), to, p); !bytes.Equal(b, s[p.Digest]) {
			t.Errorf("%s did not arrive: %v", p.Digest, err)
		}
		return nil
	}))
	for _, subject := range []ocispec.Descriptor{d, children[0], proof} {
		if all, err := to.Referrers(t.Context(), subject.Digest, ""); len(all) != 1 || err != nil {
			t.Errorf("referrers of %s: %v, %v", subject.Digest, all, err)
		}
	}
	again, err := Copy(t.Context(), from, d, to, CopyOptions{})
	if err != nil || again.Sent != 0 || again.Skipped != got.Blobs || again.Blobs != got.Blobs || again.Saved == 0 {
		t.Errorf("copied again %+v, %v", again, err)
	}
	attach(t, from, d, "application/x", "a later one")
	later, err := Copy(t.Context(), from, d, to, CopyOptions{})
	if all, _ := to.Referrers(t.Context(), d.Digest, ""); err != nil || len(all) != 2 || later.Sent == 0 || later.Sent > 2000 {
		t.Errorf("the later proof: %+v, %v, %d referrers", later, err, len(all))
	}
}
