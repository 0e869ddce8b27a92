package sandbox

import (
	"encoding/binary"
	"runtime"

	"golang.org/x/sys/unix"
)

// withoutSync is a piece of program that goes before a filter: calls that wait
// for data to be on disk succeed at once, and do nothing. What a sandbox writes
// is gone with it, so that there is nothing to make sure of; a database waits
// for little else. It also keeps sync(2) from writing out the whole machine.
// open(2)'s O_SYNC and O_DSYNC, and msync(2), keep their meaning.
func withoutSync() []byte {
	calls := []uint32{unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC, unix.SYS_SYNCFS, unix.SYS_SYNC_FILE_RANGE}
	n := uint8(len(calls))
	program := []unix.SockFilter{
		{Code: bpfLoad, K: 4},
		{Code: bpfEqual, K: auditArch(), Jt: 0, Jf: n + 2}, // behind the last
		{Code: bpfLoad, K: 0},
	}
	for i, call := range calls {
		behind := uint8(0)
		if i == len(calls)-1 {
			behind = 1
		}
		program = append(program, unix.SockFilter{Code: bpfEqual, K: call, Jt: n - 1 - uint8(i), Jf: behind})
	}
	return assemble(append(program, unix.SockFilter{Code: bpfGive, K: unix.SECCOMP_RET_ERRNO})) // errno 0: success
}

const (
	bpfLoad  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	bpfEqual = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	bpfAbove = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	bpfSet   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	bpfGive  = unix.BPF_RET | unix.BPF_K
)

// auditArch is how the kernel names this architecture to filters; 0: none that
// sandboxes are built for.
func auditArch() uint32 {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64
	}
	return 0
}

func assemble(program []unix.SockFilter) []byte {
	var b []byte
	for _, i := range program {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b
}
