package agent

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pump moves a command's output to the pipe of whoever asked without copying it,
// and counts. The count is the proof that nothing was lost on the way.
type pump struct {
	in, out *waiter
	bytes   atomic.Uint64
	whole   atomic.Bool // all there was went out
	ended   chan struct{}
}

func newPump(in, out int) *pump {
	p := &pump{in: newWaiter(in), out: newWaiter(out), ended: make(chan struct{})}
	go p.run()
	return p
}

func (p *pump) run() {
	defer close(p.ended)
	for {
		n, err := p.move()
		switch {
		case err != nil:
			p.discard()
			return
		case n == 0:
			p.whole.Store(true)
			return
		}
		p.bytes.Add(uint64(n))
	}
}

// move waits until there is output and room for it, and moves some; 0 is its end.
func (p *pump) move() (n int64, err error) {
	for {
		halted := p.in.raw.Read(func(uintptr) bool {
			n, err = unix.Splice(p.in.fd, nil, p.out.fd, nil, 1<<20, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			return !again(err) || poll(p.in.fd, unix.POLLIN)
		})
		if halted != nil {
			return 0, halted
		}
		if !again(err) {
			return n, err
		}
		p.out.awaitRoom()
	}
}

// discard lets a command go on whose output nobody reads any more: what a failed
// test leaves behind, its services, outlives who read their logs. A drain ends it.
func (p *pump) discard() {
	b := make([]byte, 4096)
	for {
		if n, err := p.in.file.Read(b); n <= 0 || err != nil {
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
	defer drop(p.in.file)
	defer drop(p.out.file)
	select {
	case <-p.ended:
		return p.whole.Load()
	case <-time.After(limit):
	}
	// A runner that reads slowly is no holder: what is in the pipe still goes out.
	for {
		left, err := unix.IoctlGetInt(p.in.fd, unix.TIOCINQ)
		if err != nil || left == 0 {
			break
		}
		select {
		case <-p.ended:
			return p.whole.Load()
		case <-time.After(10 * time.Millisecond):
		}
	}
	_ = p.in.file.SetReadDeadline(time.Now()) // a pipe takes one
	<-p.ended                                 // and with it the last use of the pipes' numbers
	return p.whole.Load()
}

// waiter is a pipe or socket that the runtime's poller waits for: whoever waits
// for it holds no thread.
type waiter struct {
	fd   int
	file *os.File // owns fd
	raw  syscall.RawConn
}

func newWaiter(fd int) *waiter {
	_ = unix.SetNonblock(fd, true) // it is open; os.NewFile asks for this
	f := os.NewFile(uintptr(fd), "")
	raw, _ := f.SyscallConn() // fails only for no file
	return &waiter{fd: fd, file: f, raw: raw}
}

// awaitRoom waits until something can be written. An error is the next write's too.
func (w *waiter) awaitRoom() {
	_ = w.raw.Write(func(uintptr) bool { return poll(w.fd, unix.POLLOUT) })
}

// poll says whether a file is ready for an event, or has ended.
func poll(fd int, event int16) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: event}}
	n, err := unix.Poll(fds, 0)
	return n > 0 || err != nil && err != unix.EINTR
}
