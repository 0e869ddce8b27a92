//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/builder/dockerfile"
	"slipway/internal/engine"
	"slipway/internal/registry"
	"slipway/internal/store"
)

// fetch brings the image that a service names into the builder's store: one that
// was imported under that name, else what its registry or a mirror has.
func (w wiring) fetch(ctx context.Context, reference string) (engine.Fetched, error) {
	ref, err := dockerfile.Normalize(reference)
	if err != nil {
		return engine.Fetched{Failure: err.Error()}, nil
	}
	if image, found, err := w.builder.Imported(ctx, ref.Name); found || err != nil {
		return engine.Fetched{Image: image}, err
	}
	pinned := strings.Contains(ref.Name, "@")
	if image, known := w.store.Fetched(ref.Name); known && pinned {
		// Nothing is asked of a registry unless a blob has been collected.
		image, err = w.builder.Take(ctx, ref.Name, image.Descriptor, w.lateBlobs(ref.Name))
		return engine.Fetched{Image: image}, err
	}
	repo, target, err := w.resolve(ctx, ref.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return engine.Fetched{Failure: err.Error() + "; mend `image` in " + pipelineFile + ", or import one of that name: slipway images import FILE --name " + reference}, nil
	}
	if err != nil {
		return engine.Fetched{}, err
	}
	image, err := w.builder.Take(ctx, ref.Name, target, repo.Blob)
	if err != nil {
		return unfit(err)
	}
	if pinned {
		err = w.store.PutFetched(ref.Name, image)
	}
	return engine.Fetched{Image: image}, err
}

// unfit is an image that no other attempt would make fit for this machine.
func unfit(err error) (engine.Fetched, error) {
	if foreign := platformError(err); foreign != nil {
		return engine.Fetched{Failure: "it cannot run on this machine: " + foreign.Error()}, nil
	}
	return engine.Fetched{}, err
}

// resolve asks for what a normal reference names now: its host's mirrors first.
// An error is that of the host itself.
func (w wiring) resolve(ctx context.Context, name string) (repo registry.Repository, target ocispec.Descriptor, err error) {
	host, path, _ := strings.Cut(name, "/")
	for _, at := range append(w.mirrors(host), host) {
		if repo, target, err = w.registries.Open(ctx, at+"/"+path); err == nil || ctx.Err() != nil {
			return repo, target, err
		}
	}
	return nil, ocispec.Descriptor{}, err
}

// lateBlobs asks where a reference is only when the first of its blobs is wanted.
func (w wiring) lateBlobs(name string) registry.Blobs {
	return func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		repo, _, err := w.resolve(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("find %s again: %w", name, err)
		}
		return repo.Blob(ctx, d)
	}
}

// knownImages tells what fetch would give, as far as records can: of what was
// imported, and of references by digest that were fetched before.
func knownImages(records *store.Store) func(string) digest.Digest {
	return func(reference string) digest.Digest {
		ref, err := dockerfile.Normalize(reference)
		if err != nil {
			return ""
		}
		if b, ok := records.Base(ref.Name); ok {
			return b.Digest
		}
		image, _ := records.Fetched(ref.Name)
		return image.Descriptor.Digest
	}
}
