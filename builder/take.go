package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/builder/dockerfile"
	"slipway/pipeline"
)

// Imported finds the image that was imported as a reference; false where none was.
func (b *Builder) Imported(ctx context.Context, reference string) (pipeline.Image, bool, error) {
	ref, err := dockerfile.Normalize(reference)
	if err != nil {
		return pipeline.Image{}, false, err
	}
	target, found, err := b.imported(ctx, ref.Name)
	return pipeline.Image{Repository: ref.Name, Descriptor: target}, found, err
}

// Take brings the image that a reference means into the store, for a container
// to be made of: of an index, the manifest for this machine alone. open gives its
// blobs; those that are there already are not asked for. The newest of a name
// stays until the store is pruned of it, as with built images.
func (b *Builder) Take(ctx context.Context, reference string, target ocispec.Descriptor, open func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)) (pipeline.Image, error) {
	ref, err := dockerfile.Normalize(reference)
	if err != nil {
		return pipeline.Image{}, err
	}
	if images.IsIndexType(target.MediaType) {
		if target, err = forThisMachine(ctx, target, open); err != nil {
			return pipeline.Image{}, fmt.Errorf("image %s: %w", reference, err)
		}
	}
	store, err := b.newIntake(ctx)
	if err != nil {
		return pipeline.Image{}, err
	}
	err = store.copy(ctx, target, open)
	if err == nil {
		_, err = b.manifests(ctx, target)
	}
	if err != nil {
		return pipeline.Image{}, errors.Join(fmt.Errorf("fetch %s: %w", reference, err), store.drop(ctx))
	}
	return pipeline.Image{Repository: ref.Name, Descriptor: target}, store.name(ctx, builtName(ref.Name)+"@"+target.Digest.String(), target)
}

// forThisMachine picks a manifest of an index.
func forThisMachine(ctx context.Context, target ocispec.Descriptor, open func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)) (_ ocispec.Descriptor, err error) {
	if target.Size > maxDocument {
		return target, fmt.Errorf("its index has %d bytes, too large for a document", target.Size)
	}
	r, err := open(ctx, target)
	if err != nil {
		return target, err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxDocument))
	if err = errors.Join(err, r.Close()); err != nil {
		return target, err
	}
	if digest.FromBytes(data) != target.Digest {
		return target, fmt.Errorf("its index is not %s, which was asked for", target.Digest)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return target, fmt.Errorf("read its index: %w", err)
	}
	only, missing := platforms.Only(platforms.DefaultSpec()), &PlatformError{Want: platforms.Format(platforms.Normalize(platforms.DefaultSpec()))}
	var best *ocispec.Descriptor
	for i, d := range index.Manifests {
		if d.Platform == nil || !images.IsManifestType(d.MediaType) || d.Annotations["vnd.docker.reference.type"] != "" {
			continue
		}
		missing.Have = append(missing.Have, platforms.Format(platforms.Normalize(*d.Platform)))
		if only.Match(*d.Platform) && (best == nil || only.Less(*d.Platform, *best.Platform)) {
			best = &index.Manifests[i]
		}
	}
	if best == nil {
		return target, missing
	}
	return ocispec.Descriptor{MediaType: best.MediaType, Digest: best.Digest, Size: best.Size}, nil
}
