// Package agent is PID 1 of every sandbox: it starts the one command it is
// told to, and further ones beside it, carries their output, reaps what is
// orphaned, and reports how each ended. It ends when its socket does, and the
// kernel then ends everything else in the sandbox; that is how nothing outlives
// whoever holds the other end.
//
// It refuses to be talked to by what it runs: nothing inside may trace it, read
// its memory, open its socket or signal it to death. It decides nothing about
// passing or failing, and imports almost nothing, since its start is part of
// every sandbox's start.
package agent

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// Run is the whole program; its result is the exit status.
func Run(args []string) int {
	if len(args) > 1 && args[1] == wire.HoldArg {
		return hold()
	}
	if len(args) > 1 && args[1] == wire.ProtocolArg {
		_, _ = os.Stdout.WriteString(wire.Protocol + "\n")
		return 0
	}
	if enter() != nil {
		return 3
	}
	js := newJobs()
	makeThreads()
	return js.serve(&conn{fd: wire.AgentFD}, true)
}

// hold keeps the namespaces it was started in until standard input ends.
func hold() int {
	var b [1]byte
	_, _ = os.Stdin.Read(b[:])
	return 0
}

// secure closes the ways from the command to its PID 1. The agent's file is
// not readable either, so the kernel keeps /proc/1 shut from the first
// instruction on; this is the second lock.
func secure(*wire.Setup) error {
	dropFD(wire.ExeFD)
	unix.CloseOnExec(wire.AgentFD)
	if !off("shut agent") {
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	signals()
	name := []byte("slipway-agent\x00") // for whoever looks at the host's processes
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
	unix.Umask(0o022)
	limit()
	if !confine() {
		return errors.New("install the seccomp filter: the kernel refuses it")
	}
	return nil
}

// limit sets what the command inherits: files as a program of today expects,
// and no core dumps. A core limit of 1 and not 0, since at 0 core(5) still
// hands a dump to the host's collector program. Done here, by the process
// itself: from outside it takes CAP_SYS_RESOURCE, which not every host's root has.
func limit() {
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) == nil {
		files.Max = min(files.Max, 1<<20)
		files.Cur = min(files.Max, 1<<16)
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files) // only ever lowers
	}
	if off("core limit") {
		return
	}
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: 1, Max: 1})
}

// now is CLOCK_MONOTONIC in nanoseconds: the runner compares it with its own.
func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}
