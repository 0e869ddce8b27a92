package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxDepth bounds recursion and open descriptors; no database nests its
// directories a hundred deep.
const maxDepth = 500

var errTooDeep = fmt.Errorf("directories are nested more than %d deep", maxDepth)

// entry is one name of a tree.
type entry struct {
	dir  int    // descriptor of the directory that holds it
	name string // in dir; "." for the root
	path string // from the root, slash-separated; "." for the root
	fd   int    // of a directory, open for reading; -1 for anything else
	st   unix.Stat_t
}

func (e *entry) kind() uint32 { return e.st.Mode & unix.S_IFMT }

func (e *entry) isDir() bool { return e.kind() == unix.S_IFDIR }

// open opens a regular file for reading. A FIFO put in its place meanwhile is an
// error and no wait.
func (e *entry) open() (*os.File, error) {
	fd, err := unix.Openat(e.dir, e.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: e.path, Err: err}
	}
	f := os.NewFile(uintptr(fd), e.path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		closeFile(f)
		return nil, fmt.Errorf("%s changed while it was read; seed from a directory at rest", e.path)
	}
	return f, nil
}

func (e *entry) readlink() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(e.dir, e.name, buf)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: e.path, Err: err}
	}
	return string(buf[:n]), nil
}

// walker goes through a tree by descriptors alone and never through a symlink:
// whoever owns the tree may change it meanwhile, but not lead out of it.
type walker struct {
	visit func(*entry) error // each entry, a directory before what it holds
	leave func(*entry) error // each directory after what it holds; may be nil
}

// walk visits the tree below root, names of each directory in byte order.
func (w walker) walk(ctx context.Context, root int) error {
	fd, err := unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the directory: %w", err)
	}
	e := &entry{dir: root, name: ".", path: ".", fd: fd}
	if err := unix.Fstat(fd, &e.st); err != nil {
		closeFD(fd)
		return err
	}
	return w.directory(ctx, e, 0)
}

// directory takes over e.fd.
func (w walker) directory(ctx context.Context, e *entry, depth int) error {
	dir := os.NewFile(uintptr(e.fd), e.path)
	defer closeFile(dir)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if depth > maxDepth {
		return fmt.Errorf("%s…: %w", e.path[:min(len(e.path), 80)], errTooDeep)
	}
	if err := w.visit(e); err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read %s: %w", e.path, err)
	}
	slices.Sort(names)
	for _, name := range names {
		child := &entry{dir: e.fd, name: name, path: join(e.path, name), fd: -1}
		if err := unix.Fstatat(e.fd, name, &child.st, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.ENOENT) {
			continue // a file that is gone was never part of it
		} else if err != nil {
			return &os.PathError{Op: "stat", Path: child.path, Err: err}
		}
		if !child.isDir() {
			err = w.visit(child)
		} else {
			child.fd, err = unix.Openat(e.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return &os.PathError{Op: "open", Path: child.path, Err: err}
			}
			err = w.directory(ctx, child, depth+1)
		}
		if err != nil {
			return err
		}
	}
	if w.leave != nil {
		return w.leave(e)
	}
	return nil
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// openDir opens a directory that slipway made itself.
func openDir(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// openWithin opens a path below root as somebody inside would see it: symlinks
// are followed, but none leads out. beneath makes one that tries an error;
// without it root is "/" to them, as in an image.
func openWithin(root, path string, beneath bool, flags int) (int, error) {
	dir, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer closeFD(dir)
	how := &unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if beneath {
		how.Resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS
		path = strings.TrimPrefix(path, "/")
	}
	if path == "" {
		path = "."
	}
	for {
		fd, err := unix.Openat2(dir, path, how)
		switch {
		case err == nil:
			return fd, nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR): // someone renamed above it: look again
		case errors.Is(err, unix.EXDEV):
			return -1, fmt.Errorf("%s leads out of %s", path, root)
		default:
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}
