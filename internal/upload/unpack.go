package upload

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// Damaged says that what was uploaded cannot be written out, and why.
type Damaged struct{ cause error }

func (d *Damaged) Error() string {
	return "the upload cannot be unpacked: " + d.cause.Error() + "; upload it again"
}

func (d *Damaged) Unwrap() error { return d.cause }

func damaged(format string, args ...any) error { return &Damaged{fmt.Errorf(format, args...)} }

// maxWindow bounds the memory that unpacking takes, whatever an upload asks for.
const maxWindow = 64 << 20

// Unpack writes packed files to a directory, which it makes. The error is a
// *Damaged where the upload is to blame.
func Unpack(ctx context.Context, from io.Reader, dir string, limit int64) (err error) {
	z, err := zstd.NewReader(from, zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	u := unpacking{root: root, left: limit}
	in := tar.NewReader(z)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return u.settle()
		}
		if err != nil {
			return damaged("%w", err)
		}
		if u.left -= costs(h.Size); u.left < 0 || h.Size < 0 {
			return damaged("it holds more than %d MiB", limit>>20)
		}
		if err := u.entry(h, in); err != nil {
			return err
		}
	}
}

type unpacking struct {
	root *os.Root
	left int64
	dirs []*tar.Header // whose modes and times come last: what is put into them changes these
}

func (u *unpacking) entry(h *tar.Header, in io.Reader) error {
	name := path.Clean(h.Name)
	if !fs.ValidPath(name) {
		return damaged("%q is no place in it", h.Name)
	}
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return damaged("%w", err)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		u.dirs = append(u.dirs, h)
		if err := u.root.MkdirAll(name, 0o700); err != nil {
			return damaged("%w", err)
		}
	case tar.TypeSymlink:
		if err := u.root.Symlink(h.Linkname, name); err != nil {
			return damaged("%w", err)
		}
	case tar.TypeReg:
		return u.file(name, h, in)
	default:
		return damaged("%q is no file, directory or symbolic link", h.Name)
	}
	return nil
}

func (u *unpacking) file(name string, h *tar.Header, in io.Reader) error {
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return damaged("%w", err)
	}
	_, err = io.Copy(f, in)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = damaged("%s: %w", name, err)
	}
	return errors.Join(err, f.Chmod(h.FileInfo().Mode()), f.Close(), u.root.Chtimes(name, h.ModTime, h.ModTime))
}

// settle gives the directories what they had, the innermost first.
func (u *unpacking) settle() error {
	for _, h := range slices.Backward(u.dirs) {
		name := path.Clean(h.Name)
		if info, err := u.root.Lstat(name); err != nil || !info.IsDir() {
			return damaged("%q is two things at once", h.Name)
		}
		if err := errors.Join(u.root.Chmod(name, h.FileInfo().Mode()), u.root.Chtimes(name, h.ModTime, h.ModTime)); err != nil {
			return err
		}
	}
	return nil
}
