package runner

import (
	"fmt"
	"io"
)

// maxOutput is how much of a test's output is passed on. A test may write more:
// it goes on running, the rest is counted and dropped, and a last line says so.
const maxOutput = 64 << 20

// store passes a test's output on, up to maxOutput, and counts all of it.
type store struct {
	to       io.Writer
	received int64
	err      error // of to: the first; the test goes on without it
}

func newStore(to io.Writer) *store { return &store{to: to} }

// Write never fails: a reader of the output that broke must not end the test
// half way, with its pipe full.
func (s *store) Write(p []byte) (int, error) {
	if left := maxOutput - s.received; left > 0 && s.err == nil && s.to != nil {
		_, s.err = s.to.Write(p[:min(int64(len(p)), left)])
	}
	s.received += int64(len(p))
	return len(p), nil
}

// finish marks output that was cut, and tells whether all could be passed on.
func (s *store) finish() error {
	if s.received > maxOutput && s.err == nil && s.to != nil {
		_, s.err = fmt.Fprintf(s.to, "\n[slipway: output cut here: the test wrote %d bytes, of which the first %d are kept]\n", s.received, maxOutput)
	}
	return s.err
}
