package agent

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// pump moves a command's output to the pipe of whoever asked without copying it,
// and counts. The count is the proof that nothing was lost on the way.
type pump struct {
	in, out int
	halt    int // an eventfd: there is no more to wait for
	bytes   atomic.Uint64
	whole   atomic.Bool // all there was went out
	ended   chan struct{}
}

func newPump(in, out int) *pump {
	p := &pump{in: in, out: out, ended: make(chan struct{})}
	var err error
	if p.halt, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		p.halt = -1 // poll(2) passes it over: a holder outside is waited for
	}
	go p.run()
	return p
}

func (p *pump) run() {
	defer close(p.ended)
	for p.wait() {
		n, err := unix.Splice(p.in, nil, p.out, nil, 1<<20, unix.SPLICE_F_MOVE)
		switch {
		case err == unix.EINTR:
		case err != nil:
			p.discard()
			return
		case n == 0:
			p.whole.Store(true)
			return
		default:
			p.bytes.Add(uint64(n))
		}
	}
}

// wait is false when nothing more is to be waited for.
func (p *pump) wait() bool {
	for {
		fds := []unix.PollFd{{Fd: int32(p.in), Events: unix.POLLIN}, {Fd: int32(p.halt), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		}
		return fds[0].Revents != 0
	}
}

// discard lets a command go on whose output nobody reads any more: what a failed
// test leaves behind, its services, outlives who read their logs.
func (p *pump) discard() {
	b := make([]byte, 4096)
	for p.wait() {
		if n, err := unix.Read(p.in, b); n <= 0 && err != unix.EINTR {
			return
		}
	}
}

// drain waits for the end of the output, and closes the pipes. Everything that
// could write is dead, so only a holder outside the sandbox, or one that a
// command beside the main one left behind, can keep the pipe open: after limit
// nothing more is waited for than what the pipe still holds. It reports whether
// the output ended by itself, and all of it went out.
func (p *pump) drain(limit time.Duration) bool {
	defer dropFDs([]int{p.in, p.out, p.halt})
	select {
	case <-p.ended:
		return p.whole.Load()
	case <-time.After(limit):
	}
	// A runner that reads slowly is no holder: what is in the pipe still goes out.
	for {
		left, err := unix.IoctlGetInt(p.in, unix.TIOCINQ)
		if err != nil || left == 0 {
			break
		}
		select {
		case <-p.ended:
			return p.whole.Load()
		case <-time.After(10 * time.Millisecond):
		}
	}
	_, _ = unix.Write(p.halt, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-p.ended // and with it the last use of the pipes' numbers
	return p.whole.Load()
}
