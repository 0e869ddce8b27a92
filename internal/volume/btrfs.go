package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of linux/btrfs.h, numbered as on amd64, arm64 and riscv64.
const (
	btrfsResize        = 0x50009403 // BTRFS_IOC_RESIZE
	btrfsSubvolCreate  = 0x5000940e // BTRFS_IOC_SUBVOL_CREATE
	btrfsSnapDestroy   = 0x5000940f // BTRFS_IOC_SNAP_DESTROY
	btrfsSnapCreate    = 0x50009417 // BTRFS_IOC_SNAP_CREATE_V2
	btrfsSubvolFlags   = 0x4008941a // BTRFS_IOC_SUBVOL_SETFLAGS
	btrfsSubvolRdonly  = 1 << 1     // BTRFS_SUBVOL_RDONLY
	btrfsSubvolumeRoot = 256        // BTRFS_FIRST_FREE_OBJECTID: the inode of every subvolume's root
)

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	fd   int64
	name [4088]byte
}

// volArgsV2 is struct btrfs_ioctl_vol_args_v2.
type volArgsV2 struct {
	fd      int64
	transid uint64
	flags   uint64
	unused  [4]uint64
	name    [4040]byte
}

// subvolumes keeps every tree in a btrfs subvolume: a copy is a snapshot, made
// and dropped in milliseconds whatever it holds.
type subvolumes struct{}

func (subvolumes) create(path string) error {
	return atParent("make", path, func(parent int, name string) error {
		args := volArgs{}
		copy(args.name[:len(args.name)-1], name)
		return ioctl(parent, btrfsSubvolCreate, unsafe.Pointer(&args))
	})
}

func (subvolumes) snapshot(_ context.Context, from, to string) error {
	src, err := unix.Open(from, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: from, Err: err}
	}
	defer closeFD(src)
	return atParent("snapshot to", to, func(parent int, name string) error {
		args := volArgsV2{fd: int64(src)}
		copy(args.name[:len(args.name)-1], name)
		return ioctl(parent, btrfsSnapCreate, unsafe.Pointer(&args))
	})
}

// seal makes a tree read-only: what is content-addressed must not change.
func (subvolumes) seal(path string) error {
	return setReadOnly(path, true)
}

func setReadOnly(path string, on bool) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer closeFD(fd)
	if err := setReadOnlyFD(fd, on); err != nil {
		return &os.PathError{Op: "change the flags of subvolume", Path: path, Err: err}
	}
	return nil
}

func setReadOnlyFD(fd int, on bool) error {
	var flags uint64
	if on {
		flags = btrfsSubvolRdonly
	}
	return ioctl(fd, btrfsSubvolFlags, unsafe.Pointer(&flags))
}

// growBtrfs makes the file system at dir as large as its device.
func growBtrfs(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer closeFD(fd)
	args := volArgs{}
	copy(args.name[:], "max")
	if err := ioctl(fd, btrfsResize, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("grow the btrfs at %s: %w", dir, err)
	}
	return nil
}

// atParent runs do with the directory that holds path and the last name of it.
func atParent(verb, path string, do func(parent int, name string) error) error {
	parent, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer closeFD(parent)
	if err := do(parent, filepath.Base(path)); err != nil {
		return &os.PathError{Op: verb + " subvolume", Path: path, Err: err}
	}
	return nil
}
