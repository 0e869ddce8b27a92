package runner

import (
	"fmt"
	"io"
	"time"
)

// maxOutput is how much of a test's output is passed on. A test may write more:
// it goes on running, the rest is counted and dropped, and a last line says so.
const maxOutput = 64 << 20

// pace is how fast output above maxOutput is read, in bytes a second. Reading is
// slipway's own work, which no limit of the sandbox bounds: at full speed endless
// output takes a core from its neighbours. Whoever writes waits for his pipe.
const pace = 64 << 20

// store passes output on, up to a limit, and counts all of it.
type store struct {
	to       io.Writer
	limit    int64 // bytes; 0: none
	received int64
	begun    time.Time // when received was last at a whole MiB above maxOutput
	err      error     // of to: the first; the test goes on without it
}

func newStore(to io.Writer, limit int64) *store { return &store{to: to, limit: limit} }

// Write never fails: a reader of the output that broke must not end the test
// half way, with its pipe full.
func (s *store) Write(p []byte) (int, error) {
	left := int64(len(p))
	if s.limit > 0 {
		left = min(left, s.limit-s.received)
	}
	if left > 0 && s.err == nil && s.to != nil {
		_, s.err = s.to.Write(p[:left])
	}
	was := s.received
	s.received += int64(len(p))
	if s.received > maxOutput && was>>20 != s.received>>20 {
		<-time.After(time.Until(s.begun.Add((1 << 20) * time.Second / pace))) // 16 ms at most
		s.begun = time.Now()
	}
	return len(p), nil
}

// finish marks output that was cut, and tells whether all could be passed on.
func (s *store) finish() error {
	if s.limit > 0 && s.received > s.limit && s.err == nil && s.to != nil {
		_, s.err = fmt.Fprintf(s.to, "\n[slipway: output cut here: the test wrote %d bytes, of which the first %d are kept]\n", s.received, s.limit)
	}
	return s.err
}

// capped passes on so much of a service's log, and then a line that says so. The
// service goes on.
type capped struct {
	to   io.Writer
	left int64 // bytes
}

func (c *capped) Write(p []byte) (int, error) {
	if c.left < 0 {
		return len(p), nil
	}
	n := min(int64(len(p)), c.left)
	if _, err := c.to.Write(p[:n]); err != nil {
		return 0, err
	}
	if c.left -= n; n < int64(len(p)) {
		c.left = -1
		if _, err := fmt.Fprintf(c.to, "\n[slipway: log cut here: %d MiB of a service's are kept]\n", maxOutput>>20); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
