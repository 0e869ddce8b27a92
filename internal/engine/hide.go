package engine

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"slipway/internal/mask"
	"slipway/internal/store"
	"slipway/pipeline"
)

// hideProgress gives what a build reports to: the run's secrets are hidden in it
// wherever the pieces of a step's output are cut.
func (c *conductor) hideProgress() func(pipeline.Progress) {
	h := &hider{mask: c.Mask, streams: map[stream]*hiddenStream{}}
	return func(p pipeline.Progress) { c.Progress(h.hide(p)) }
}

// hider hides secrets in the progress of one build.
type hider struct {
	mask    *mask.Mask
	mu      sync.Mutex
	streams map[stream]*hiddenStream
}

// stream is one of a step's outputs. Each is looked at by itself: what is written
// to the other meanwhile must not hide a secret from us.
type stream struct {
	step string
	fd   int
}

// maxStream is the file descriptor of standard error.
const maxStream = 2

// hiddenStream is a stream on its way.
type hiddenStream struct {
	*mask.Writer
	out bytes.Buffer
}

func (h *hider) hide(p pipeline.Progress) pipeline.Progress {
	h.mu.Lock()
	defer h.mu.Unlock()
	logs := make([]pipeline.StepLog, 0, len(p.Logs))
	say := func(at stream, when time.Time) {
		if s := h.streams[at]; s.out.Len() > 0 {
			logs = append(logs, pipeline.StepLog{Step: at.step, Stream: at.fd, Data: bytes.Clone(s.out.Bytes()), Time: when})
			s.out.Reset()
		}
	}
	for _, l := range p.Logs {
		at := stream{l.Step, l.Stream}
		s := h.streams[at]
		if s == nil {
			s = &hiddenStream{}
			s.Writer = h.mask.Writer(&s.out)
			h.streams[at] = s
		}
		_, _ = s.Write(l.Data) // into memory
		say(at, l.Time)
	}
	p.Steps = slices.Clone(p.Steps)
	for i, step := range p.Steps {
		p.Steps[i].Name, p.Steps[i].Error = h.mask.Text(step.Name), h.mask.Text(step.Error)
		if step.Completed == nil {
			continue
		}
		for fd := range maxStream + 1 {
			if s := h.streams[stream{step.ID, fd}]; s != nil {
				_ = s.Close() // into memory
				say(stream{step.ID, fd}, *step.Completed)
			}
		}
	}
	p.Logs = logs
	return p
}

// hideReports hides secrets in what the record says of a test's reports. The
// reports themselves are files of the test.
func (c *conductor) hideReports(sum *store.JUnit) *store.JUnit {
	if sum == nil {
		return nil
	}
	for i, f := range sum.Failed {
		sum.Failed[i] = store.FailedCase{Name: c.Mask.Text(f.Name), Message: c.Mask.Text(f.Message)}
	}
	for i, p := range sum.Problems {
		sum.Problems[i] = c.Mask.Text(p)
	}
	return sum
}
