package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctlOwner asks who owns a user namespace (ioctl_ns(2), NS_GET_OWNER_UID).
func ioctlOwner(fd int, uid *uint32) error {
	const nsGetOwnerUID = 0xb704
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nsGetOwnerUID, uintptr(unsafe.Pointer(uid))); e != 0 {
		return e
	}
	return nil
}
