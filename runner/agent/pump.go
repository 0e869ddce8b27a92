package agent

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// pump moves the command's output to the runner's pipe without copying it, and
// counts. The count is the proof that nothing was lost on the way.
type pump struct {
	in, out int
	bytes   atomic.Uint64
	ended   chan struct{}
}

func newPump(in, out int) *pump {
	p := &pump{in: in, out: out, ended: make(chan struct{})}
	go p.run()
	return p
}

func (p *pump) run() {
	defer close(p.ended)
	for {
		n, err := unix.Splice(p.in, nil, p.out, nil, 1<<20, unix.SPLICE_F_MOVE)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		p.bytes.Add(uint64(n))
	}
}

// drain waits for the end of the output. Everything that could write is dead,
// so only a holder outside the sandbox can keep the pipe open: after limit
// nothing more is waited for than what the pipe still holds. It reports whether
// the output ended by itself.
func (p *pump) drain(limit time.Duration) bool {
	defer dropFD(p.out)
	select {
	case <-p.ended:
		return true
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
			return true
		case <-time.After(10 * time.Millisecond):
		}
	}
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}
