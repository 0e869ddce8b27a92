package registry

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Kind is what a file turned out to hold.
type Kind string

// The kinds of file OpenFile reads.
const (
	RootFS        Kind = "root file system"
	Layout        Kind = "OCI layout"
	DockerArchive Kind = "docker archive"
)

// OpenOptions says how a file is to be read as an image.
type OpenOptions struct {
	TempDir  string                  // required; on the disk of the store. Archive.Close removes what was made there
	Image    string                  // which of several images: a reference, a tag or a digest
	Platform *ocispec.Platform       // nil: what the file holds; the machine's for a root file system
	Config   Config                  // only for a root file system
	Progress func(read, total int64) // bytes of the file; may be nil
}

// Archive is an image in a file. Its blobs are checked while they are read.
type Archive struct {
	Kind   Kind
	Name   string             // the reference the file records for the image, "" when there is none
	Target ocispec.Descriptor // manifest or index
	Blobs  Blobs              // everything under Target, until Close

	close []func() error
}

// Close gives back the file and what was made in TempDir.
func (a *Archive) Close() error {
	var all []error
	for i := len(a.close) - 1; i >= 0; i-- {
		all = append(all, a.close[i]())
	}
	a.close = nil
	return errors.Join(all...)
}

// OpenFile reads path as an image: a root file system or a `docker save`
// archive (a tar, or one packed with gzip, zstd or bzip2), or an OCI layout (a
// directory, or such a tar). Every error names the file and the next step.
//
// ctx covers the reading; it packs a root file system completely and only lists an image.
func OpenFile(ctx context.Context, path string, o OpenOptions) (*Archive, error) {
	a := &Archive{}
	if err := a.open(ctx, path, o); err != nil {
		return nil, errors.Join(fmt.Errorf("import %s: %w", path, explainFile(err, o)), a.Close())
	}
	return a, nil
}

func (a *Archive) open(ctx context.Context, path string, o OpenOptions) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return a.openDir(ctx, path, o)
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file; save it to one first, so that it can be read twice")
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	a.close = append(a.close, f.Close)
	s := source{File: f, size: info.Size(), progress: o.Progress}

	image, err := looksLikeImage(s)
	if err != nil {
		return err
	}
	if !image {
		if err := a.importRootFS(ctx, s, o, true); !errors.Is(err, errHoldsImage) {
			return err
		}
	}
	if ok, err := a.openImageTar(ctx, s, o); ok || err != nil {
		return err
	}
	return a.importRootFS(ctx, s, o, false)
}

// source is the file being imported, readable from the start more than once.
type source struct {
	*os.File
	size     int64
	progress func(read, total int64)
}

func (s source) fromStart() io.Reader {
	r := io.NewSectionReader(s.File, 0, s.size)
	if s.progress == nil {
		return r
	}
	return &counted{r: r, report: func(n int64) { s.progress(n, s.size) }}
}

type counted struct {
	r      io.Reader
	n      int64
	report func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if n > 0 {
		c.report(c.n)
	}
	return n, err
}

// looksLikeImage reads names until one cannot belong to an image archive. It
// may be wrong both ways; it only picks what is tried first.
func looksLikeImage(s source) (bool, error) {
	if s.size == 0 {
		return false, errors.New("the file is empty; make it again")
	}
	z, packing, err := decompress(io.NewSectionReader(s.File, 0, s.size))
	if err != nil {
		return false, err
	}
	defer z.Close()
	tr := tar.NewReader(z)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return n > 0, nil
		}
		if n == 0 && packing == plain && err != nil {
			return false, errors.New("neither a tar nor an OCI layout; give a root file system as a tar (gzip, zstd and bzip2 are read too), an OCI layout or the output of `docker save`")
		}
		if err != nil {
			return false, err
		}
		if !imageEntry(cleanName(h.Name)) {
			return false, nil
		}
	}
}

// imageEntry reports whether name may belong to an image archive.
func imageEntry(name string) bool {
	switch name {
	case "", "blobs", "repositories", dockerManifestFile, ocispec.ImageLayoutFile, ocispec.ImageIndexFile:
		return true
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(name, "sha256:"), "/")
	stem, _, _ := strings.Cut(first, ".")
	return first == "blobs" || len(stem) == 64 && strings.Trim(stem, "0123456789abcdef") == ""
}

// openImageTar reads s as an image archive, if it is one.
func (a *Archive) openImageTar(ctx context.Context, s source, o OpenOptions) (bool, error) {
	f, err := a.unpacked(ctx, s, o)
	if err != nil {
		return false, err
	}
	entries, err := indexTar(ctx, f)
	if err != nil {
		return false, err
	}
	has := func(name string) bool { _, ok := entries[name]; return ok }
	open := tarFiles(f, entries)
	switch {
	case has(ocispec.ImageIndexFile) && has(ocispec.ImageLayoutFile):
		return true, a.openLayout(ctx, open, o)
	case has(ocispec.ImageLayoutFile):
		return true, fmt.Errorf("an OCI layout without its %s; make the archive again", ocispec.ImageIndexFile)
	case has(dockerManifestFile):
		return a.openDocker(ctx, open, o)
	case has("repositories"):
		return true, errors.New("written by a `docker save` older than 1.10; load it with docker and save it again")
	}
	return false, nil
}

// unpacked gives a tar that can be read at any offset: the file itself, or a
// copy of what is packed in it.
func (a *Archive) unpacked(ctx context.Context, s source, o OpenOptions) (*os.File, error) {
	z, packing, err := decompress(s.fromStart())
	if err != nil {
		return nil, err
	}
	defer z.Close()
	if packing == plain {
		return s.File, nil
	}
	f, err := a.tempFile(o.TempDir)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(f, &tapped{r: z, stopped: stopped(ctx), w: io.Discard})
	return f, err
}

func (a *Archive) tempFile(dir string) (*os.File, error) {
	if dir == "" {
		return nil, errors.New("OpenOptions.TempDir is not set")
	}
	f, err := os.CreateTemp(dir, "import-*")
	if err != nil {
		return nil, err
	}
	a.close = append(a.close, func() error { return errors.Join(f.Close(), os.Remove(f.Name())) })
	return f, nil
}

func (a *Archive) importRootFS(ctx context.Context, s source, o OpenOptions, watch bool) error {
	p := platforms.DefaultSpec()
	if o.Platform != nil {
		p = *o.Platform
	}
	p = platforms.Normalize(p)
	if p.OS != "linux" {
		return fmt.Errorf("platform %s: slipway imports Linux root file systems only", platforms.Format(p))
	}
	layer, err := a.tempFile(o.TempDir)
	if err != nil {
		return err
	}
	i, err := importRootFS(ctx, s.fromStart(), layer, p, o.Config, watch)
	if err != nil {
		return err
	}
	a.Kind, a.Target = RootFS, i.manifest
	a.Blobs = i.blobs(layer)
	return nil
}

func (a *Archive) openDir(ctx context.Context, path string, o OpenOptions) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	a.close = append(a.close, root.Close)
	if _, err := root.Stat(ocispec.ImageIndexFile); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("a directory without the %s of an OCI layout; if it is a root file system, pack it with `tar -C %s -cf rootfs.tar .`", ocispec.ImageIndexFile, filepath.Clean(path))
	}
	return a.openLayout(ctx, dirFiles(root), o)
}

// explainFile adds the next step to errors of the archive readers and the file system.
func explainFile(err error, o OpenOptions) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w; free space in %s (`slipway gc` may help) and import again", err, o.TempDir)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; check the path and its permissions", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the file was cut off; copy or make it again")
	case errors.Is(err, errDamaged), errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("the file cannot be unpacked (%w); copy or make it again", err)
	}
	return err
}
