package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/manifest"
)

// Source is another store on this machine, such as the builder's.
type Source struct {
	// Open opens a blob by its descriptor.
	Open func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)
	// Path says which file holds a blob that nobody will ever write to again; ""
	// where there is none. nil: no blob has one.
	Path func(digest.Digest) string
}

// PutImage takes the image d, with all that it names, from a store on this
// machine. Where both lie on one file system a blob comes as a link or as a
// clone that shares its blocks, and the bytes are not read: whoever made the
// source has checked them. What the repository has is left as it is.
func (r *Repository) PutImage(ctx context.Context, d ocispec.Descriptor, from Source) error {
	return r.putImage(ctx, d, from, 0)
}

// maxDepth bounds indexes within indexes; nothing real goes beyond two.
const maxDepth = 8

func (r *Repository) putImage(ctx context.Context, d ocispec.Descriptor, from Source, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: indexes nested more than %d deep; this is not an image slipway can keep", d.Digest, maxDepth)
	}
	if err := manifest.CheckDescriptor(d); err != nil {
		return err
	}
	doc, err := readDocument(ctx, d, from)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	m, err := checkManifest(d.MediaType, doc, d.Digest)
	if err != nil {
		return err
	}
	for _, c := range m.Children() {
		if manifest.Is(c.MediaType) {
			err = r.putImage(ctx, c, from, depth+1)
		} else {
			err = r.takeBlob(ctx, c, from)
		}
		if err != nil {
			return err
		}
	}
	return r.PutManifest(ctx, d, doc)
}

func readDocument(ctx context.Context, d ocispec.Descriptor, from Source) ([]byte, error) {
	if d.Size > manifest.MaxSize {
		return nil, fmt.Errorf("%d bytes are too many for a manifest", d.Size)
	}
	in, err := from.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	doc, err := io.ReadAll(io.LimitReader(in, d.Size+1))
	return doc, errors.Join(err, in.Close())
}

func (r *Repository) takeBlob(ctx context.Context, d ocispec.Descriptor, from Source) error {
	if ok, err := r.Has(ctx, ocispec.Descriptor{Digest: d.Digest}); ok || err != nil {
		return err
	}
	if taken, err := r.takeFile(ctx, d, from); taken || err != nil {
		return err
	}
	return r.PutBlob(ctx, d, from.Open)
}

// takeFile links or clones the file that holds d, if there is one.
func (r *Repository) takeFile(ctx context.Context, d ocispec.Descriptor, from Source) (bool, error) {
	if from.Path == nil {
		return false, nil
	}
	name := from.Path(d.Digest)
	if name == "" {
		return false, nil
	}
	in, err := os.OpenFile(name, os.O_RDONLY|noFollow, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != d.Size {
		return false, err // not what was promised: reading it will say how
	}
	if err := in.Sync(); err != nil { // free where its maker did
		return false, explain(err)
	}
	taken := false
	err = r.store.locked(ctx, shared, func() error {
		if taken, err = r.store.linkFile(in, d.Digest); !taken || err != nil {
			return err
		}
		return r.link(layersDir, d.Digest, "")
	})
	if taken || err != nil {
		return err == nil, err
	}
	return r.cloneFile(ctx, in, d.Digest)
}

// linkFile gives an open file its name by digest, and reports whether it could:
// not across file systems, and not everywhere within one.
func (s *Store) linkFile(in *os.File, d digest.Digest) (bool, error) {
	at := content(d)
	if err := s.root.MkdirAll(path.Dir(at), 0o700); err != nil {
		return false, explain(err)
	}
	// The file itself, not whatever has its name by now.
	err := linkOpen(in, filepath.Join(s.dir, at))
	switch {
	case err == nil, errors.Is(err, fs.ErrExist):
		return true, nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return false, explain(err)
	}
	return false, nil
}

// cloneFile takes a file's blocks, and reports whether the file system shares them.
func (r *Repository) cloneFile(ctx context.Context, in *os.File, d digest.Digest) (bool, error) {
	t, err := r.store.newTemp(ctx)
	if err != nil {
		return false, err
	}
	defer t.drop()
	if cloneBlocks(t.File, in) != nil {
		return false, nil
	}
	return true, r.place(ctx, t, d)
}
