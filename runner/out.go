package runner

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// What a test may leave in /out. Reports are small; the limits keep a hostile
// test from filling the host with copies.
const (
	maxOutBytes = 1 << 30
	maxOutFiles = 10_000
	maxOutDepth = 32
)

// unkeepable is an /out that is the test's fault.
type unkeepable struct{ why string }

func (e *unkeepable) Error() string { return "/out: " + e.why }

// keep copies the regular files of /out to a directory of the host. Everything
// in the sandbox is dead by now or will be soon, but what it left was made to
// be read by root: so nothing is opened by a path of more than one name, no
// symlink is followed, and what is neither file nor directory is passed over.
// The copies belong to this process and have no special bits.
func keep(from, to string) error {
	src, err := unix.Open(from, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(src), "/out")
	defer drop(d)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	dst, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer drop(dst)
	k := &keeper{bytes: maxOutBytes, files: maxOutFiles}
	return k.directory(d, dst, 0)
}

type keeper struct {
	bytes int64 // still allowed
	files int
}

// directory copies what is in d to the directory dst.
func (k *keeper) directory(d *os.File, dst *os.Root, depth int) error {
	if depth > maxOutDepth {
		return &unkeepable{fmt.Sprintf("directories are nested more than %d deep", maxOutDepth)}
	}
	for {
		names, err := d.Readdirnames(256)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for _, name := range names {
			if err := k.entry(d, name, dst, depth); err != nil {
				return err
			}
		}
		if len(names) == 0 || err != nil {
			return nil
		}
	}
}

// entry copies one file or directory.
func (k *keeper) entry(d *os.File, name string, dst *os.Root, depth int) error {
	// O_NONBLOCK: opening a fifo must not wait for a writer. Devices cannot be
	// made in a sandbox, and NO_XDEV leaves out what could be mounted.
	fd, err := unix.Openat2(int(d.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil //nolint:nilerr // a symlink, a socket, or gone: none of it is a report
	}
	f := os.NewFile(uintptr(fd), name)
	defer drop(f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		if err := dst.Mkdir(name, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		sub, err := dst.OpenRoot(name)
		if err != nil {
			return err
		}
		defer drop(sub)
		return k.directory(f, sub, depth+1)
	case info.Mode().IsRegular():
		if info.Size() > k.bytes {
			return k.tooLarge()
		}
		return k.file(f, name, dst)
	}
	return nil
}

func (k *keeper) tooLarge() error {
	return &unkeepable{fmt.Sprintf("more than %d MiB of files", maxOutBytes>>20)}
}

func (k *keeper) file(f *os.File, name string, dst *os.Root) error {
	if k.files--; k.files < 0 {
		return &unkeepable{fmt.Sprintf("more than %d files", maxOutFiles)}
	}
	if err := dst.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	w, err := dst.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	n, err := io.Copy(w, io.LimitReader(f, k.bytes+1)) // not the file's stated size: it may be growing
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if k.bytes -= n; k.bytes < 0 {
		return k.tooLarge()
	}
	return nil
}
