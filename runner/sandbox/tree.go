package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxDepth of directories a tree may have to be walked with one open file per
// level. Paths end at 4096 bytes, so a tree that programs can name has at most
// half as many levels.
const maxDepth = 2048

// removeTree removes a directory and all below it, without following a symlink
// out of it and however deep it is: a test can nest directories until no path
// reaches the last, and no process may open them all at once. What lies too
// deep is moved up first.
func removeTree(dir string) error {
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	r := remover{root: root}
	err = r.empty(os.NewFile(uintptr(root), dir), 0)
	if err == nil {
		err = unix.Rmdir(dir)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

type remover struct {
	root  int
	moved int
}

// removeDepth is where removal moves directories up: well below any file limit.
const removeDepth = 128

// empty removes what is in d, and closes it.
func (r *remover) empty(d *os.File, depth int) error {
	defer drop(d)
	at := int(d.Fd())
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			if err := r.remove(at, name, depth); err != nil {
				return err
			}
		}
		if len(names) == 0 || err != nil {
			// Directories moved up meanwhile come after the ones already listed,
			// or before: look again until there is nothing.
			if depth == 0 && r.moved > 0 {
				r.moved = 0
				if _, err := d.Seek(0, 0); err != nil {
					return err
				}
				continue
			}
			return nil
		}
	}
}

func (r *remover) remove(at int, name string, depth int) error {
	err := unix.Unlinkat(at, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s: %w", name, err)
	}
	if depth >= removeDepth {
		for n := 0; ; n++ {
			err := unix.Renameat2(at, name, r.root, "deep"+strconv.Itoa(n), unix.RENAME_NOREPLACE)
			if err == nil {
				r.moved++
				return nil
			}
			if !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := r.empty(os.NewFile(uintptr(fd), name), depth+1); err != nil {
		return fmt.Errorf("%s/%w", name, err)
	}
	if err := unix.Unlinkat(at, name, unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// usage of a tree, in bytes. Every entry counts at least what its inode and
// name take, so that empty files are not free.
func usage(dir string) (int64, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	return usageBelow(os.NewFile(uintptr(fd), filepath.Base(dir)), 0)
}

// perEntry is what an entry counts at least: a block of a directory, or an inode.
const perEntry = 1024

var errTooDeep = fmt.Errorf("directories are nested more than %d deep", maxDepth)

func usageBelow(d *os.File, depth int) (total int64, err error) {
	defer drop(d)
	if depth > maxDepth {
		return 0, errTooDeep
	}
	at := int(d.Fd())
	for {
		names, rerr := d.Readdirnames(1024)
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue // gone meanwhile
			}
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				total += max(st.Blocks*512/int64(max(1, st.Nlink)), perEntry) // each name of a file counts its share
				continue
			}
			total += max(st.Blocks*512, perEntry)
			fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			below, err := usageBelow(os.NewFile(uintptr(fd), name), depth+1)
			total += below
			if err != nil {
				return total, err
			}
		}
		if rerr != nil || len(names) == 0 {
			return total, nil
		}
	}
}
