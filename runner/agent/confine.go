package agent

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// confine installs the seccomp filter on all threads of this process: whatever
// it starts inherits it and cannot take it off. It reports whether that worked;
// no_new_privs, which the kernel asks for, is set already.
func confine() bool {
	f := os.NewFile(wire.FilterFD, "filter")
	info, err := f.Stat()
	if err != nil {
		return false
	}
	const size = int64(unsafe.Sizeof(unix.SockFilter{}))
	program := make([]unix.SockFilter, info.Size()/size)
	if len(program) == 0 || len(program) > 1<<16-1 {
		return false
	}
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&program[0])), len(program)*int(size))
	if n, err := f.ReadAt(raw, 0); err != nil || n != len(raw) {
		return false
	}
	drop(f)
	if off("seccomp") {
		return true
	}
	p := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	failed, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	return e == 0 && failed == 0
}
