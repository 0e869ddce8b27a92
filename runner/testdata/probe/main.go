// Command probe makes system calls that a sandbox must refuse, and says which it did.
package main

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "sync" {
		sync()
		return
	}
	attr := make([]byte, 256)
	p := uintptr(unsafe.Pointer(&attr[0]))
	allowed := 0
	for _, c := range []struct {
		name string
		call func() (uintptr, uintptr, syscall.Errno)
	}{
		{"keyctl", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_KEYCTL, 0, 0, 0) }},
		{"add_key", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_ADD_KEY, p, p, 0) }},
		{"bpf", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_BPF, 0, p, 64) }},
		{"perf_event_open", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_PERF_EVENT_OPEN, p, 0, 0) }},
		{"io_uring_setup", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_IO_URING_SETUP, 1, p, 0) }},
		{"unshare user", func() (uintptr, uintptr, syscall.Errno) {
			return syscall.Syscall(unix.SYS_UNSHARE, unix.CLONE_NEWUSER, 0, 0)
		}},
		{"setns", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_SETNS, 0, 0, 0) }},
		{"open_tree", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_OPEN_TREE, 0, p, 1) }},
		{"fsopen", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_FSOPEN, p, 0, 0) }},
		{"pivot_root", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_PIVOT_ROOT, p, p, 0) }},
		{"kexec_load", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_KEXEC_LOAD, 0, 0, 0) }},
		{"init_module", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_INIT_MODULE, p, 0, p) }},
		{"reboot", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_REBOOT, 0, 0, 0) }},
		{"userfaultfd", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_USERFAULTFD, 0, 0, 0) }},
		{"settimeofday", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_SETTIMEOFDAY, p, 0, 0) }},
		{"ptrace PID 1", func() (uintptr, uintptr, syscall.Errno) {
			return syscall.Syscall6(unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1, 0, 0, 0, 0)
		}},
		{"AF_VSOCK", func() (uintptr, uintptr, syscall.Errno) {
			return syscall.Syscall(unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0)
		}},
		{"AF_ALG", func() (uintptr, uintptr, syscall.Errno) {
			return syscall.Syscall(unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
		}},
		{"AF_PACKET", func() (uintptr, uintptr, syscall.Errno) {
			return syscall.Syscall(unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW, 0)
		}},
		{"mknod", func() (uintptr, uintptr, syscall.Errno) {
			path := []byte("/tmp/disk\x00")
			return syscall.Syscall6(unix.SYS_MKNODAT, 0, uintptr(unsafe.Pointer(&path[0])), unix.S_IFBLK|0o600, 8<<8, 0, 0)
		}},
		{"open_by_handle_at", func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(unix.SYS_OPEN_BY_HANDLE_AT, 0, p, 0) }},
	} {
		_, _, e := c.call()
		switch e {
		case unix.EPERM, unix.ENOSYS, unix.EACCES, unix.EAFNOSUPPORT:
			fmt.Println("refused", c.name, e)
		default:
			allowed++
			fmt.Println("ALLOWED", c.name, e)
		}
	}
	// A call that no kernel has must say so: C libraries fall back on older ones.
	if _, _, e := syscall.Syscall(1<<20, 0, 0, 0); e != unix.ENOSYS {
		fmt.Println("ALLOWED nothing, but an unknown call fails with", e)
		allowed++
	}
	// statx is younger than many profiles and must work: programs of today need it.
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, "/", 0, unix.STATX_ALL, &st); err != nil {
		fmt.Println("ALLOWED nothing, but statx fails:", err)
		allowed++
	}
	os.Exit(allowed)
}

// sync says which calls are made that wait for the disk: on a descriptor that is
// not open, one that is made fails.
func sync() {
	none := ^uintptr(0)
	for _, c := range []struct {
		name string
		call uintptr
	}{{"fsync", unix.SYS_FSYNC}, {"fdatasync", unix.SYS_FDATASYNC}, {"syncfs", unix.SYS_SYNCFS}, {"sync_file_range", unix.SYS_SYNC_FILE_RANGE}, {"close", unix.SYS_CLOSE}} {
		_, _, e := syscall.Syscall6(c.call, none, 0, 0, 0, 0, 0)
		fmt.Println(c.name, e == unix.EBADF)
	}
	_, _, e := syscall.Syscall(unix.SYS_SYNC, 0, 0, 0)
	fmt.Println("sync", e)
}
