//go:build linux && !client

package main

import (
	"context"
	"io"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry"
	"slipway/internal/volume"
)

// pullVolume gives the volume that `slipway volumes push` put at
// REPOSITORY@sha256:…, under a name unless that is empty, and how many bytes of
// it were received: none where the store has it, which asks no registry.
func pullVolume(ctx context.Context, s *volume.Store, name, reference string, from *registry.Registries) (v volume.Volume, received int64, err error) {
	ref, err := registry.ParseReference(reference)
	if err != nil {
		return v, 0, usageError{err}
	}
	if ref.Digest == "" {
		return v, 0, usagef("%s names no volume for certain; write REPOSITORY@sha256:…, as `slipway volumes push` prints it", reference)
	}
	repo, err := from.Repository(ref.Repository)
	if err != nil {
		return v, 0, usageError{err}
	}
	var bytes atomic.Int64
	fetch := func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		r, err := repo.Blob(ctx, d)
		if err != nil {
			return nil, err
		}
		return &counted{r, &bytes}, nil
	}
	v, err = s.Seed(ctx, name, volume.Artifact(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: ref.Digest}, fetch))
	return v, bytes.Load(), err
}

// counted counts what is read.
type counted struct {
	io.ReadCloser
	bytes *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}
