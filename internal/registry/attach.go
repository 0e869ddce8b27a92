package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/manifest"
)

// Artifact is something that refers to an image, such as a signed statement.
type Artifact struct {
	Subject     ocispec.Descriptor // media type, digest and size count
	Type        string             // the artifact type, and the media type of the one layer
	Data        []byte             // the layer
	Annotations map[string]string
}

// Attach puts an artifact beside its subject (image-spec, "Guidelines for
// Artifact Usage": an empty config and one layer) and gives the descriptor of its
// manifest. The same artifact attached again is the same manifest.
func Attach(ctx context.Context, r Repository, a Artifact) (ocispec.Descriptor, error) {
	if err := manifest.CheckDescriptor(a.Subject); err != nil || a.Type == "" || a.Subject.MediaType == "" {
		return ocispec.Descriptor{}, fmt.Errorf("attach to %s: %w", r.Name(), errNoSubject)
	}
	empty := ocispec.DescriptorEmptyJSON
	layer := ocispec.Descriptor{MediaType: a.Type, Digest: digest.FromBytes(a.Data), Size: int64(len(a.Data))}
	doc, err := json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: a.Type,
		Config:       ocispec.Descriptor{MediaType: empty.MediaType, Digest: empty.Digest, Size: empty.Size},
		Layers:       []ocispec.Descriptor{layer},
		Subject:      &ocispec.Descriptor{MediaType: a.Subject.MediaType, Digest: a.Subject.Digest, Size: a.Subject.Size},
		Annotations:  a.Annotations,
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, b := range []struct {
		d     ocispec.Descriptor
		bytes []byte
	}{{empty, empty.Data}, {layer, a.Data}} {
		if err := PutBytes(ctx, r, b.d, b.bytes); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("attach to %s@%s: %w", r.Name(), a.Subject.Digest, err)
		}
	}
	d := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(doc), Size: int64(len(doc)),
		ArtifactType: a.Type, Annotations: a.Annotations,
	}
	if err := r.PutManifest(ctx, d, doc); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("attach to %s@%s: %w", r.Name(), a.Subject.Digest, err)
	}
	return d, nil
}

// PutBytes stores a blob that is at hand, unless the repository has it.
func PutBytes(ctx context.Context, r Repository, d ocispec.Descriptor, b []byte) error {
	if ok, err := r.Has(ctx, ocispec.Descriptor{Digest: d.Digest}); ok || err != nil {
		return err
	}
	return r.PutBlob(ctx, d, func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	})
}
