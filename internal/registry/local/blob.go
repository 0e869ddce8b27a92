package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/flock"
	"slipway/internal/registry/manifest"
)

const (
	shared    = flock.Shared
	exclusive = flock.Exclusive
)

// Blob opens a blob or manifest of the repository; the caller closes it. It is
// an io.ReadSeeker too. Its bytes were checked when they came in.
func (r *Repository) Blob(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	f, _, err := r.openAny(d.Digest)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// OpenBlob is Blob as a file, with its size in bytes.
func (r *Repository) OpenBlob(_ context.Context, d digest.Digest) (*os.File, int64, error) {
	return r.openAny(d)
}

func (r *Repository) openAny(d digest.Digest) (*os.File, int64, error) {
	if err := manifest.CheckDigest(d); err != nil {
		return nil, 0, err
	}
	f, size, err := r.open(layersDir, d)
	if errors.Is(err, fs.ErrNotExist) {
		f, size, err = r.open(manifestsDir, d)
	}
	return f, size, err
}

// Has reports whether the repository holds d: a manifest or index where d's
// media type says so, else a blob. The answer holds for a while: what nothing
// refers to is not collected soon after.
func (r *Repository) Has(_ context.Context, d ocispec.Descriptor) (bool, error) {
	if err := manifest.CheckDigest(d.Digest); err != nil {
		return false, err
	}
	dir := layersDir
	if manifest.Is(d.MediaType) {
		dir = manifestsDir
	}
	at := r.path(dir, entry(d.Digest))
	info, err := r.store.root.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r.store.refresh(at, info)
	return true, nil
}

// refresh makes content young again that a collection would find old: whoever
// asked for it is about to refer to it.
func (s *Store) refresh(at string, info fs.FileInfo) {
	if time.Since(changed(info)) > DefaultGrace/4 {
		_ = s.root.Chtimes(at, time.Now(), info.ModTime()) // on a read-only disk nothing is collected either
	}
}

// PutBlob takes a blob from where from opens it. A blob that the repository
// has, and one that is anywhere in the store with the size d says, is not read.
// It is visible once its bytes are checked and on the disk, or never.
func (r *Repository) PutBlob(ctx context.Context, d ocispec.Descriptor, from func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)) (err error) {
	if err := manifest.CheckDescriptor(d); err != nil {
		return err
	}
	if ok, err := r.Has(ctx, ocispec.Descriptor{Digest: d.Digest}); ok || err != nil {
		return err
	}
	if info, err := r.store.root.Lstat(content(d.Digest)); err == nil && info.Size() == d.Size {
		if ok, err := r.MountAny(ctx, d.Digest); ok || err != nil {
			return err
		}
	}
	in, err := from(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	t, err := r.store.newTemp(ctx)
	if err != nil {
		return err
	}
	defer t.drop()
	sum := d.Digest.Algorithm().Hash()
	n, err := copyBytes(ctx, io.MultiWriter(t, sum), in)
	if err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, explain(err))
	}
	if got := digest.NewDigest(d.Digest.Algorithm(), sum); got != d.Digest || n != d.Size {
		return fmt.Errorf("blob %s of %d bytes: %w: %s, %d bytes came; get or build the image again", d.Digest, d.Size, ErrDigest, got, n)
	}
	return r.place(ctx, t, d.Digest)
}

// copyBytes is io.Copy that ends with ctx.
func copyBytes(ctx context.Context, w io.Writer, from io.Reader) (int64, error) {
	buf := make([]byte, 256<<10)
	var all int64
	for {
		if ctx.Err() != nil {
			return all, context.Cause(ctx)
		}
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return all, err
			}
			all += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

// place gives checked content its names: in the store, for others to find, and
// as a blob of the repository. The second is made durable by the manifest that
// will name it.
func (r *Repository) place(ctx context.Context, t *temp, d digest.Digest) error {
	if err := t.seal(); err != nil {
		return err
	}
	return r.store.locked(ctx, shared, func() error {
		if err := r.store.keep(t.path, d); err != nil {
			return err
		}
		return r.link(layersDir, d, t.path)
	})
}

// keep gives content its name by digest, where it has none yet.
func (s *Store) keep(from string, d digest.Digest) error {
	at := content(d)
	if err := s.root.MkdirAll(path.Dir(at), 0o700); err != nil {
		return explain(err)
	}
	err := s.root.Link(from, at)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return explain(err)
}

// link makes d an entry of one of the repository's directories: of what the
// store holds, or of the file spare, which has the same bytes.
func (r *Repository) link(dir string, d digest.Digest, spare string) error {
	if err := r.store.makeDir(r.path(dir)); err != nil {
		return err
	}
	to := r.path(dir, entry(d))
	var err error
	for _, from := range []string{content(d), spare} {
		if from == "" {
			continue
		}
		if err = r.store.root.Link(from, to); err == nil || errors.Is(err, fs.ErrExist) {
			return nil
		}
	}
	if errors.Is(err, syscall.EMLINK) {
		return r.store.copyFile(content(d), to)
	}
	return explain(err)
}

// copyFile is for content that has as many links as the file system allows
// (65,000 on ext4); blocks are shared where it can do that.
func (s *Store) copyFile(from, to string) (err error) {
	in, err := s.root.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	t, err := s.newTemp(context.Background())
	if err != nil {
		return err
	}
	defer t.drop()
	if cloneBlocks(t.File, in) != nil {
		if _, err := io.Copy(t.File, in); err != nil {
			return explain(err)
		}
	}
	if err := t.seal(); err != nil {
		return err
	}
	if err := s.root.Link(t.path, to); !errors.Is(err, fs.ErrExist) {
		return explain(err)
	}
	return nil
}

// Mount makes a blob of another repository of this store one of this, and
// reports whether it was there. Nothing is copied.
func (r *Repository) Mount(ctx context.Context, d digest.Digest, from *Repository) (mounted bool, err error) {
	if from.store != r.store {
		return false, nil
	}
	return r.mount(ctx, d, from.path(layersDir, entry(d)))
}

// MountAny is Mount for a blob of whichever repository has it.
func (r *Repository) MountAny(ctx context.Context, d digest.Digest) (mounted bool, err error) {
	if err := manifest.CheckDigest(d); err != nil {
		return false, err
	}
	return r.mount(ctx, d, content(d))
}

func (r *Repository) mount(ctx context.Context, d digest.Digest, source string) (mounted bool, err error) {
	if err := manifest.CheckDigest(d); err != nil {
		return false, err
	}
	err = r.store.locked(ctx, shared, func() error {
		_, err := r.store.root.Lstat(source)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		mounted = err == nil
		if err != nil {
			return err
		}
		return r.link(layersDir, d, source)
	})
	return mounted && err == nil, err
}
