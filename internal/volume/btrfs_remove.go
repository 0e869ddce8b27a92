package volume

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// remove deletes what is at path, subvolume or directory, with everything below.
func (subvolumes) remove(path string) error {
	return atParent("delete", path, func(parent int, name string) error {
		if err := removeAt(parent, name, 0); !errors.Is(err, unix.ENOENT) {
			return err
		}
		return nil
	})
}

// removeAt works by directory descriptors alone: whoever still writes in a copy
// could put a symlink in place of a directory between two looks.
func removeAt(parent int, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.Unlinkat(parent, name, 0)
	}
	if depth > maxDepth {
		return errTooDeep
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer closeFile(dir)
	subvolume := st.Ino == btrfsSubvolumeRoot
	if subvolume {
		lift := liftLimit(fd)
		if err := destroySubvolume(parent, name); !errors.Is(err, unix.ENOTEMPTY) {
			lift()
			return err
		}
		// Whoever may write in a copy may also make subvolumes in it. They go first.
		if err := setReadOnlyFD(fd, false); err != nil {
			return err
		}
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAt(fd, n, depth+1); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	if subvolume {
		return destroySubvolume(parent, name)
	}
	return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}

func destroySubvolume(parent int, name string) error {
	args := volArgs{}
	copy(args.name[:len(args.name)-1], name)
	return ioctl(parent, btrfsSnapDestroy, unsafe.Pointer(&args))
}
