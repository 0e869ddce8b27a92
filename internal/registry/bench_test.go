package registry

import (
	"crypto/rand"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/endpoint"
	"slipway/internal/registry/local"
)

// BenchmarkPromoteWithinStore copies an image of ten layers with two proofs to a
// repository that is new each time.
func BenchmarkPromoteWithinStore(b *testing.B) {
	s, err := local.Open(b.TempDir())
	must(b, err)
	defer s.Close()
	all := &Registries{Local: s}
	from, err := all.Repository("test/app")
	must(b, err)
	images := store{}
	var layers []string
	for i := range 10 {
		layers = append(layers, fmt.Sprint("layer ", i))
	}
	d := images.image(b, "amd64", layers...)
	_, err = Push(b.Context(), images.blobs, d, from, CopyOptions{})
	must(b, err)
	for _, proof := range []string{"result", "provenance"} {
		_, err := Attach(b.Context(), from, Artifact{Subject: d, Type: "application/x", Data: []byte(proof)})
		must(b, err)
	}
	n := 0
	for b.Loop() {
		n++
		to, err := all.Repository(fmt.Sprintf("prod/app%d", n))
		must(b, err)
		_, err = Copy(b.Context(), from, ocispec.Descriptor{Digest: d.Digest}, to, CopyOptions{})
		must(b, err)
	}
}

// BenchmarkCopyBetweenRegistries copies an image to a repository that is new each
// time, as slipway does and as go-containerregistry (which is crane) does.
func BenchmarkCopyBetweenRegistries(b *testing.B) {
	for _, size := range []int{5_000_000, 100_000_000} {
		from := benchRegistry(b)
		to := func() string { return benchRegistry(b) }
		images := store{}
		noise := make([]byte, size)
		_, err := rand.Read(noise)
		must(b, err)
		d := images.image(b, "amd64", string(noise))
		_, err = pushTo(b.Context(), images.blobs, d, from+"/app", Options{})
		must(b, err)
		n := 0
		b.Run(fmt.Sprintf("slipway/%dMB", size/1_000_000), func(b *testing.B) {
			for b.Loop() {
				n++
				got, err := copyTo(b.Context(), from+"/app@"+d.Digest.String(), fmt.Sprintf("%s/s%d", to(), n), Options{})
				must(b, err)
				if got.Sent < int64(size) {
					b.Fatalf("only %d bytes were sent", got.Sent)
				}
			}
		})
		b.Run(fmt.Sprintf("crane/%dMB", size/1_000_000), func(b *testing.B) {
			for b.Loop() {
				n++
				must(b, crane.Copy(from+"/app@"+d.Digest.String(), fmt.Sprintf("%s/c%d:v1", to(), n), crane.WithContext(b.Context())))
			}
		})
	}
}

// benchRegistry is an empty registry on loopback.
func benchRegistry(b *testing.B) (host string) {
	b.Helper()
	s, err := local.Open(b.TempDir())
	must(b, err)
	h := httptest.NewServer(endpoint.New(endpoint.Options{Store: s}))
	b.Cleanup(func() {
		h.Close()
		must(b, s.Close())
	})
	return strings.TrimPrefix(h.URL, "http://")
}
