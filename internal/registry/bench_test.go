package registry

import (
	"fmt"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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
