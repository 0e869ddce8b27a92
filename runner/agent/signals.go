package agent

import (
	"os"
	"os/signal"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's own struct, as rt_sigaction(2) takes it on the
// architectures that Go has Linux on.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// nothingAt is where nothing begins, a handler that does nothing (signals.s).
var nothingAt uintptr

// ignored is SIG_IGN.
const ignored = 1

// signals leaves commands the signals as a login would: none is ignored, which
// exec(2) would hand on from whoever started slipway (nohup, some CI agents). And
// none ends the agent: a PID 1 gets only those it handles, of which the Go
// runtime would end on these, so they are caught and dropped. It leaves some real-time
// signals alone: one that comes while the main thread blocks signals, as it does where
// it starts a command, ends a PID 1 all the same, since its other threads take it.
func signals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT,
		unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGPIPE, unix.SIGTERM, unix.SIGSTKFLT, unix.SIGSYS)
	var drops, preset sigaction
	rtSigaction(uintptr(unix.SIGTERM), nil, &drops) // flags and the way back, as the runtime has them
	drops.handler = nothingAt
	for n := uintptr(1); n <= 64; n++ {
		var was sigaction
		switch {
		case !rtSigaction(n, nil, &was):
		case was.handler == ignored:
			rtSigaction(n, &preset, nil)
		case was.handler == preset.handler && n >= 32:
			rtSigaction(n, &drops, nil)
		}
	}
}

func rtSigaction(n uintptr, set, was *sigaction) bool {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(was)), 8, 0, 0)
	return e == 0
}
