package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/manifest"
)

// Repository is one repository of the store.
type Repository struct {
	store *Store
	name  string
}

// Name is "team/app".
func (r *Repository) Name() string { return r.name }

// path is a file or directory of the repository.
func (r *Repository) path(parts ...string) string {
	return path.Join(append([]string{reposDir, r.name}, parts...)...)
}

func (r *Repository) missing(what fmt.Stringer) error {
	return fmt.Errorf("%s is not in repository %s of the local store: %w", what, r.name, fs.ErrNotExist)
}

// Exists reports whether anything was ever put into it.
func (r *Repository) Exists() bool {
	_, err := r.store.root.Lstat(r.path(manifestsDir))
	return err == nil
}

// Resolve says what a tag or digest names now. A tag may name something else a
// moment later: keep the answer and never ask twice.
func (r *Repository) Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	d := digest.Digest(ref)
	if !strings.Contains(ref, ":") {
		var err error
		if d, err = r.tagged(ref); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	desc, _, err := r.Manifest(ctx, d)
	return desc, err
}

func (r *Repository) tagged(tag string) (digest.Digest, error) {
	if err := CheckTag(tag); err != nil {
		return "", err
	}
	b, err := r.store.root.ReadFile(r.path(tagsDir, tag))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("repository %s of the local store has no tag %s: %w", r.name, tag, fs.ErrNotExist)
	}
	return digest.Digest(b), err
}

// Manifest reads a manifest or index; its bytes are checked.
func (r *Repository) Manifest(_ context.Context, d digest.Digest) (ocispec.Descriptor, []byte, error) {
	desc, m, doc, err := r.read(manifestsDir, d)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	desc.ArtifactType = m.ArtifactType
	return desc, doc, nil
}

// read reads a manifest from one of the repository's directories.
func (r *Repository) read(dir string, d digest.Digest) (desc ocispec.Descriptor, m manifest.Manifest, doc []byte, err error) {
	if err := manifest.CheckDigest(d); err != nil {
		return desc, m, nil, err
	}
	f, size, err := r.open(dir, d)
	if err != nil {
		return desc, m, nil, err
	}
	defer f.Close()
	if size > manifest.MaxSize {
		return desc, m, nil, fmt.Errorf("%s has %d bytes, too many for a manifest", d, size)
	}
	doc = make([]byte, size)
	if _, err := io.ReadFull(f, doc); err != nil {
		return desc, m, nil, fmt.Errorf("manifest %s: %w", d, err)
	}
	if d.Algorithm().FromBytes(doc) != d {
		return desc, m, nil, fmt.Errorf("manifest %s of the local store is damaged: %w; remove the image and push it again", d, ErrDigest)
	}
	if m, err = manifest.Parse("", doc); err != nil {
		return desc, m, nil, fmt.Errorf("manifest %s: %w", d, err)
	}
	return m.Descriptor(d, size), m, doc, nil
}

// open opens a link of the repository and says how many bytes it has.
func (r *Repository) open(dir string, d digest.Digest) (*os.File, int64, error) {
	f, err := r.store.root.Open(r.path(dir, entry(d)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, r.missing(d)
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file; the store was changed by hand", f.Name())
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// Tags lists the tags, sorted as bytes.
func (r *Repository) Tags(context.Context) ([]string, error) {
	names, err := r.store.list(r.path(tagsDir))
	if err == nil && len(names) == 0 && !r.Exists() {
		return nil, fmt.Errorf("the local store has no repository %s: %w", r.name, fs.ErrNotExist)
	}
	return names, err
}

// Tag makes tag name d from now on; d must be in the repository.
func (r *Repository) Tag(ctx context.Context, tag string, d digest.Digest) error {
	if err := errors.Join(CheckTag(tag), manifest.CheckDigest(d)); err != nil {
		return err
	}
	return r.store.locked(ctx, shared, func() error {
		if _, err := r.store.root.Lstat(r.path(manifestsDir, entry(d))); err != nil {
			return r.missing(d)
		}
		if err := r.store.makeDir(r.path(tagsDir)); err != nil {
			return err
		}
		t, err := r.store.newTemp(ctx)
		if err != nil {
			return err
		}
		defer t.drop()
		if _, err := t.Write([]byte(d)); err != nil {
			return explain(err)
		}
		if err := t.Sync(); err != nil {
			return explain(err)
		}
		if err := r.store.root.Rename(t.path, r.path(tagsDir, tag)); err != nil {
			return explain(err)
		}
		return r.settle(tagsDir)
	})
}

// OfType lists the manifests of an artifact type, whatever they refer to.
func (r *Repository) OfType(artifactType string) (found []ocispec.Descriptor, err error) {
	all, err := r.manifests()
	for d, m := range all {
		if m.ArtifactType == artifactType {
			found = append(found, ocispec.Descriptor{MediaType: m.MediaType, Digest: d, ArtifactType: artifactType})
		}
	}
	return found, err
}

// Referrers lists the manifests whose subject is d, sorted by digest: those of
// one artifact type, or all where it is "".
func (r *Repository) Referrers(_ context.Context, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	if err := manifest.CheckDigest(d); err != nil {
		return nil, err
	}
	dir := path.Join(referrersDir, entry(d))
	names, err := r.store.list(r.path(dir))
	if err != nil {
		return nil, err
	}
	var out []ocispec.Descriptor
	for _, name := range names {
		child, ok := digestOf(name)
		if !ok {
			continue
		}
		// The entry is made before the manifest and removed after it.
		if _, err := r.store.root.Lstat(r.path(manifestsDir, name)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		desc, _, _, err := r.read(dir, child)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if artifactType == "" || desc.ArtifactType == artifactType {
			out = append(out, desc)
		}
	}
	return out, nil
}
