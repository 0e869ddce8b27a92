package volume

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Quotas are btrfs's simple ones (Linux 6.7): a byte counts for the subvolume
// that wrote it, so a snapshot starts at zero and the limit is what a copy may
// write. They are only switched on in slipway's own image, never in the host's
// file system.
//
// The limit is on a group of level 1 with the number of its subvolume, not on
// the subvolume: the kernel puts subvolumes made inside into the same group, so
// they are no way around it.
const (
	btrfsInoLookup   = 0xd0009412 // BTRFS_IOC_INO_LOOKUP
	btrfsQuotaCtl    = 0xc0109428 // BTRFS_IOC_QUOTA_CTL
	btrfsGroupAssign = 0x40189429 // BTRFS_IOC_QGROUP_ASSIGN
	btrfsGroupCreate = 0x4010942a // BTRFS_IOC_QGROUP_CREATE
	btrfsGroupLimit  = 0x8030942b // BTRFS_IOC_QGROUP_LIMIT
	btrfsSimpleQuota = 4          // BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA
	btrfsMaxRfer     = 1          // BTRFS_QGROUP_LIMIT_MAX_RFER
	groupLevel1      = 1 << 48
	noLimit          = ^uint64(0)
)

type groupAssign struct{ assign, src, dst uint64 }

type groupCreate struct{ create, id uint64 }

type groupLimit struct{ id, flags, maxRfer, maxExcl, rsvRfer, rsvExcl uint64 }

// enableQuotas switches simple quotas on; an older kernel has none.
func enableQuotas(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer closeFD(fd)
	args := struct{ cmd, status uint64 }{cmd: btrfsSimpleQuota}
	return ioctl(fd, btrfsQuotaCtl, unsafe.Pointer(&args))
}

// limit is how many bytes may be written in a fresh snapshot. limited is false
// where the file system has no quotas.
func (subvolumes) limit(path string, bytes int64) (limited bool, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer closeFD(fd)
	id, err := subvolumeID(fd)
	if err != nil {
		return false, err
	}
	group := groupCreate{1, groupLevel1 | id}
	if err := ioctl(fd, btrfsGroupCreate, unsafe.Pointer(&group)); errors.Is(err, unix.ENOTCONN) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("make a quota group for %s: %w", path, err)
	}
	join := groupAssign{1, id, group.id}
	if err := ioctl(fd, btrfsGroupAssign, unsafe.Pointer(&join)); err != nil {
		return false, fmt.Errorf("put %s in its quota group: %w", path, err)
	}
	limit := groupLimit{id: group.id, flags: btrfsMaxRfer, maxRfer: uint64(bytes)}
	if err := ioctl(fd, btrfsGroupLimit, unsafe.Pointer(&limit)); err != nil {
		return false, fmt.Errorf("limit what may be written in %s: %w", path, err)
	}
	return true, nil
}

// liftLimit takes the limit off the subvolume open at fd: at its limit it could
// not even be deleted. The function returned removes the group, after the
// subvolume. Where there is none both do nothing; a group that stays behind,
// because subvolumes inside were its members too, is a few bytes.
func liftLimit(fd int) (removeGroup func()) {
	id, err := subvolumeID(fd)
	if err != nil {
		return func() {}
	}
	limit := groupLimit{id: groupLevel1 | id, flags: btrfsMaxRfer, maxRfer: noLimit}
	if err := ioctl(fd, btrfsGroupLimit, unsafe.Pointer(&limit)); err != nil {
		return func() {}
	}
	return func() {
		leave := groupAssign{0, id, groupLevel1 | id}
		_ = ioctl(fd, btrfsGroupAssign, unsafe.Pointer(&leave))
		group := groupCreate{0, groupLevel1 | id}
		_ = ioctl(fd, btrfsGroupCreate, unsafe.Pointer(&group))
	}
}

func subvolumeID(fd int) (uint64, error) {
	args := struct {
		tree, object uint64
		name         [4080]byte
	}{object: btrfsSubvolumeRoot}
	if err := ioctl(fd, btrfsInoLookup, unsafe.Pointer(&args)); err != nil {
		return 0, fmt.Errorf("ask for a subvolume's number: %w", err)
	}
	return args.tree, nil
}
