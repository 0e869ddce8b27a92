package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// CopyOut copies a file or directory of a volume, or of a copy that is kept, to a path of the host that does
// not exist yet, with owners where the caller is root. Symlinks at path are
// followed inside the volume only, those below it are copied as they are.
func (s *Store) CopyOut(ctx context.Context, ref, path, to string) (err error) {
	tree, unlock, err := s.content(ref)
	if err != nil {
		return err
	}
	defer unlock()
	from, err := locate(tree, path)
	if err != nil {
		return fmt.Errorf("copy out of volume %s: %w", ref, err)
	}
	defer from.close()
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("copy %s out of volume %s: %s: %w; name another", path, ref, to, os.ErrExist)
	}
	dir, err := unix.Open(filepath.Dir(to), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(to), Err: err}
	}
	defer closeFD(dir)
	if err := from.copyTo(ctx, &copier{skipSockets: true}, dir, filepath.Base(to)); err != nil {
		return errors.Join(fmt.Errorf("copy %s out of volume %s: %w", path, ref, err), os.RemoveAll(to))
	}
	return nil
}

// CopyIn makes a new volume of the named one with a file or directory of the
// host at path in it, and moves the name there: whoever copies the volume
// meanwhile gets the old one or the new one. It fails when somebody else moved
// the name meanwhile. A directory is merged into one that
// is there, a file replaces a file. What path lies in must exist.
func (s *Store) CopyIn(ctx context.Context, name, path, from string) (Volume, error) {
	v, err := s.Find(name)
	if err != nil {
		return Volume{}, err
	}
	if !slices.Contains(v.Names, name) {
		return Volume{}, fmt.Errorf("copy into %s: an ID is for ever the same content; name the volume by its name", name)
	}
	says := func(err error) error { return fmt.Errorf("copy %s into volume %s: %w", from, name, err) }
	unlock, err := s.hold(v.ID)
	if err != nil {
		return Volume{}, err
	}
	defer unlock()
	place := s.temporary("cp")
	if err := os.Mkdir(place, 0o700); err != nil {
		return Volume{}, err
	}
	defer s.drop(place)
	dir := filepath.Join(place, treeDir)
	if err := s.trees.snapshot(ctx, filepath.Join(s.volume(v.ID), treeDir), dir); err != nil {
		return Volume{}, says(err)
	}
	if err := s.copyInto(ctx, dir, path, from); err != nil {
		return Volume{}, says(err)
	}
	return s.installSaved(ctx, place, name, v.ID, fmt.Sprintf("%s with %s at %s", short(v.ID), from, path))
}

// copyInto changes a tree that nobody else sees.
func (s *Store) copyInto(ctx context.Context, dir, path, from string) error {
	source, err := locate("/", absolute(from))
	if err != nil {
		return err
	}
	defer source.close()
	if source.entry.isDir() {
		f, err := look(ctx, source.entry.fd)
		if err != nil {
			return err
		}
		source.entry.st.Size = f.size
	}
	if err := s.makeRoom(ctx, source.entry.st.Size); err != nil {
		return err
	}
	path = within(path)
	if path == "" {
		if !source.entry.isDir() {
			return errors.New("a file needs a name in the volume: write VOLUME:/name")
		}
		to, err := openDir(dir)
		if err != nil {
			return err
		}
		defer closeFD(to)
		return (&copier{merge: true}).copyTree(ctx, source.entry.fd, to)
	}
	to, err := openWithin(dir, filepath.Dir(path), false, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer closeFD(to)
	return source.copyTo(ctx, &copier{merge: true}, to, filepath.Base(path))
}

// located is a file or directory that was found by its path.
type located struct{ entry *entry }

// locate finds path below root, following symlinks inside only.
func locate(root, path string) (*located, error) {
	found, err := openWithin(root, path, false, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer closeFD(found)
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", found))
	if err != nil {
		return nil, err
	}
	e := &entry{name: filepath.Base(real), path: filepath.Base(real), fd: -1}
	if err := unix.Fstat(found, &e.st); err != nil {
		return nil, err
	}
	if e.isDir() {
		e.name, e.path = ".", "."
		e.dir, err = unix.Open(real, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		e.fd = e.dir
	} else {
		e.dir, err = unix.Open(filepath.Dir(real), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: real, Err: err}
	}
	return &located{e}, nil
}

func (l *located) close() { closeFD(l.entry.dir) }

// copyTo copies it into dir under a name.
func (l *located) copyTo(ctx context.Context, c *copier, dir int, name string) error {
	if !l.entry.isDir() {
		return c.copyFile(ctx, l.entry, dir, name)
	}
	if err := unix.Mkdirat(dir, name, 0o700); err != nil && (!c.merge || !errors.Is(err, unix.EEXIST)) {
		return named("make", name, err)
	}
	to, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return named("open", name, err)
	}
	defer closeFD(to)
	return c.copyTree(ctx, l.entry.dir, to)
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
