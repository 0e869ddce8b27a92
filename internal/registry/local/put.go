package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/manifest"
)

// PutManifest makes doc, whose media type and digest d says, a manifest of the
// repository, and a referrer of its subject where it names one. Its blobs and
// manifests must be in the repository by then; its subject need not be. When it
// returns, all of it survives a power cut.
func (r *Repository) PutManifest(ctx context.Context, d ocispec.Descriptor, doc []byte) error {
	m, err := checkManifest(d.MediaType, doc, d.Digest)
	if err != nil {
		return err
	}
	if _, err := r.store.root.Lstat(content(d.Digest)); err == nil {
		return r.store.locked(ctx, shared, func() error { return r.publish(m, d.Digest, "") })
	}
	t, err := r.store.newTemp(ctx)
	if err != nil {
		return err
	}
	defer t.drop()
	if _, err := t.Write(doc); err != nil {
		return explain(err)
	}
	if err := t.seal(); err != nil {
		return err
	}
	return r.store.locked(ctx, shared, func() error {
		if err := r.store.keep(t.path, d.Digest); err != nil {
			return err
		}
		return r.publish(m, d.Digest, t.path)
	})
}

func checkManifest(mediaType string, doc []byte, d digest.Digest) (manifest.Manifest, error) {
	if err := manifest.CheckDigest(d); err != nil {
		return manifest.Manifest{}, err
	}
	if len(doc) > manifest.MaxSize {
		return manifest.Manifest{}, fmt.Errorf("%w: %d bytes, the most is %d", ErrManifest, len(doc), manifest.MaxSize)
	}
	if d.Algorithm().FromBytes(doc) != d {
		return manifest.Manifest{}, fmt.Errorf("manifest %s: %w", d, ErrDigest)
	}
	m, err := manifest.Parse("", doc)
	if err == nil && mediaType != "" && m.MediaType != mediaType {
		err = fmt.Errorf("it is a %q but was sent as %q", m.MediaType, mediaType)
	}
	if err != nil {
		return manifest.Manifest{}, fmt.Errorf("manifest %s: %w: %w", d, ErrManifest, err)
	}
	return m, nil
}

// publish makes the manifest visible, last of all it needs: the links of its
// blobs are there, then comes its place among the referrers, then itself. So a
// manifest that is there is whole, and a referrer that is there is listed.
func (r *Repository) publish(m manifest.Manifest, d digest.Digest, spare string) error {
	blobs, err := r.complete(m)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	var dirs []string
	if blobs {
		dirs = append(dirs, layersDir) // another process may have made the links
	}
	if m.Subject != nil {
		dir := path.Join(referrersDir, entry(m.Subject.Digest))
		if err := r.link(dir, d, spare); err != nil {
			return err
		}
		dirs = append(dirs, dir)
	}
	if err := r.link(manifestsDir, d, spare); err != nil {
		return err
	}
	return r.settle(append(dirs, manifestsDir)...)
}

// complete makes sure that all the manifest stands on is in the repository, and
// reports whether blobs are among it.
func (r *Repository) complete(m manifest.Manifest) (blobs bool, err error) {
	for _, c := range m.Children() {
		dir := layersDir
		if m.Config == nil && manifest.Is(c.MediaType) {
			dir = manifestsDir
		}
		info, err := r.store.root.Lstat(r.path(dir, entry(c.Digest)))
		switch {
		case errors.Is(err, fs.ErrNotExist) && manifest.Foreign(c):
			continue
		case errors.Is(err, fs.ErrNotExist):
			return false, fmt.Errorf("%w: %s is not in repository %s; push it first", ErrIncomplete, c.Digest, r.name)
		case err != nil:
			return false, err
		case info.Size() != c.Size:
			return false, fmt.Errorf("%w: %s has %d bytes, not %d", ErrManifest, c.Digest, info.Size(), c.Size)
		}
		blobs = blobs || dir == layersDir
	}
	return blobs, nil
}
