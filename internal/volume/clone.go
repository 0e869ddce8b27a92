package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copier copies a tree with everything hashTree looks at, and with its
// modification times and holes. Files share their blocks with the source where
// the file system can (FICLONE).
type copier struct {
	skipSockets bool // of a copy that was in use; else a socket is refused
	merge       bool // into a tree that already holds something
	noClone     bool // set when the first try says that blocks cannot be shared

	to    int   // root of the copy
	stack []int // directories open in the copy, the root first
	links map[inodeKey]string
}

// copyTree copies what is below from into the empty directory to.
func (c *copier) copyTree(ctx context.Context, from, to int) error {
	c.to, c.links = to, map[inodeKey]string{}
	defer func() {
		for _, d := range c.stack {
			closeFD(d)
		}
		c.stack = nil
	}()
	return walker{
		visit: func(e *entry) error { return c.visit(ctx, e) },
		leave: c.leave,
	}.walk(ctx, from)
}

// copyFile copies one entry that is no directory into a directory, under a name.
func (c *copier) copyFile(ctx context.Context, e *entry, dir int, name string) error {
	c.to, c.links = dir, map[inodeKey]string{}
	c.stack = []int{dir}
	defer func() { c.stack = nil }()
	return c.single(ctx, e, name)
}

func (c *copier) visit(ctx context.Context, e *entry) error {
	if e.isDir() {
		return c.enter(e)
	}
	return c.single(ctx, e, e.name)
}

func (c *copier) single(ctx context.Context, e *entry, name string) error {
	if c.skipSockets && e.kind() == unix.S_IFSOCK {
		return nil
	}
	if err := refuse(e); err != nil {
		return err
	}
	dir := c.stack[len(c.stack)-1]
	if c.merge {
		if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return named("replace", name, err)
		}
	}
	key := inodeKey{e.st.Dev, e.st.Ino}
	if e.st.Nlink > 1 {
		if first, seen := c.links[key]; seen {
			return named("link", e.path, unix.Linkat(c.to, first, dir, name, 0))
		}
		c.links[key] = e.path
	}
	var err error
	switch e.kind() {
	case unix.S_IFLNK:
		var target string
		if target, err = e.readlink(); err == nil {
			err = named("symlink", e.path, unix.Symlinkat(target, dir, name))
		}
	case unix.S_IFIFO:
		err = named("make", e.path, unix.Mkfifoat(dir, name, 0o600))
	default:
		err = c.file(ctx, e, dir, name)
	}
	if err != nil {
		return err
	}
	return c.attributes(e, dir, name)
}

// enter makes a directory that only its owner can look into until it is complete.
func (c *copier) enter(e *entry) error {
	at, name := c.to, "."
	if e.path != "." {
		at, name = c.stack[len(c.stack)-1], e.name
		if err := unix.Mkdirat(at, name, 0o700); err != nil && (!c.merge || !errors.Is(err, unix.EEXIST)) {
			return named("make", e.path, err)
		}
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%s is a directory, but what it would replace is none; remove that first", e.path)
	}
	if err != nil {
		return named("open", e.path, err)
	}
	c.stack = append(c.stack, fd)
	return nil
}

// leave gives a directory its owner, mode and time, which writing in it changed.
func (c *copier) leave(e *entry) error {
	d := c.stack[len(c.stack)-1]
	c.stack = c.stack[:len(c.stack)-1]
	defer closeFD(d)
	return c.attributes(e, d, ".")
}

// attributes are set on the entry of that name in dir.
func (c *copier) attributes(e *entry, dir int, name string) error {
	attrs, err := xattrs(e)
	if err != nil {
		return err
	}
	return set(dir, name, e.path, metadata{
		symlink: e.kind() == unix.S_IFLNK, mode: e.st.Mode & 0o7777, uid: e.st.Uid, gid: e.st.Gid, mtime: e.st.Mtim, xattrs: attrs,
	})
}

// metadata is what an entry has besides its content.
type metadata struct {
	symlink  bool
	mode     uint32
	uid, gid uint32
	mtime    unix.Timespec
	xattrs   []xattr
}

// set gives an entry of dir its metadata. The owner comes first: changing it
// clears set-id bits and file capabilities.
func set(dir int, name, path string, m metadata) error {
	if err := unix.Fchownat(dir, name, int(m.uid), int(m.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Uid != m.uid || st.Gid != m.gid {
			return fmt.Errorf("give %s to its owner %d:%d: %w; run slipway as root, or give the files to yourself", path, m.uid, m.gid, err)
		}
	}
	if !m.symlink {
		if err := unix.Fchmodat(dir, name, m.mode, 0); err != nil {
			return named("chmod", path, err)
		}
	}
	full := fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
	for _, a := range m.xattrs {
		if err := unix.Lsetxattr(full, a.Name, a.Value, 0); err != nil {
			return named("setxattr "+a.Name, path, err)
		}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, m.mtime}
	return named("set the time of", path, unix.UtimesNanoAt(dir, name, times, unix.AT_SYMLINK_NOFOLLOW))
}

func (c *copier) file(ctx context.Context, e *entry, dir int, name string) error {
	from, err := e.open()
	if err != nil {
		return err
	}
	defer closeFile(from)
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return named("make", e.path, err)
	}
	to := os.NewFile(uintptr(fd), e.path)
	return errors.Join(c.content(ctx, from, to), to.Close())
}

func (c *copier) content(ctx context.Context, from, to *os.File) error {
	if !c.noClone {
		err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
		if err == nil {
			return nil
		}
		c.noClone = cannotClone(err)
	}
	return copyData(ctx, from, to)
}

// cannotClone tells a file system that shares no blocks from a failure. EINVAL
// is an odd file, EXDEV another file system.
func cannotClone(err error) bool {
	return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EXDEV)
}

// copyStep is how much is copied before ctx is looked at again.
const copyStep = 64 << 20

// copyData copies what is data and leaves holes holes (lseek(2), SEEK_DATA).
func copyData(ctx context.Context, from, to *os.File) error {
	for at := int64(0); ; {
		start, err := unix.Seek(int(from.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data up to the end
			break
		}
		if err != nil {
			return named("seek in", from.Name(), err)
		}
		end, err := unix.Seek(int(from.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return named("seek in", from.Name(), err)
		}
		if _, err := from.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := to.Seek(start, io.SeekStart); err != nil {
			return err
		}
		for at = start; at < end; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n, err := io.CopyN(to, from, min(copyStep, end-at)) // copy_file_range(2) where it works
			at += n
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
		}
		if at < end { // it shrank meanwhile
			break
		}
	}
	info, err := from.Stat()
	if err != nil {
		return err
	}
	return to.Truncate(info.Size())
}

func named(verb, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: verb, Path: path, Err: err}
}
