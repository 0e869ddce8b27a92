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
	h := &hider{mask: c.Mask, steps: map[string]*hiddenStep{}}
	return func(p pipeline.Progress) { c.Progress(h.hide(p)) }
}

// hider hides secrets in the progress of one build.
type hider struct {
	mask  *mask.Mask
	mu    sync.Mutex
	steps map[string]*hiddenStep
}

// hiddenStep is the output of one step, on its way.
type hiddenStep struct {
	*mask.Writer
	out bytes.Buffer
}

func (h *hider) hide(p pipeline.Progress) pipeline.Progress {
	h.mu.Lock()
	defer h.mu.Unlock()
	logs := make([]pipeline.StepLog, 0, len(p.Logs))
	say := func(step string, at time.Time) {
		if s := h.steps[step]; s != nil && s.out.Len() > 0 {
			logs = append(logs, pipeline.StepLog{Step: step, Data: bytes.Clone(s.out.Bytes()), Time: at})
			s.out.Reset()
		}
	}
	for _, l := range p.Logs {
		s := h.steps[l.Step]
		if s == nil {
			s = &hiddenStep{}
			s.Writer = h.mask.Writer(&s.out)
			h.steps[l.Step] = s
		}
		_, _ = s.Write(l.Data) // into memory
		say(l.Step, l.Time)
	}
	p.Steps = slices.Clone(p.Steps)
	for i, step := range p.Steps {
		p.Steps[i].Name, p.Steps[i].Error = h.mask.Text(step.Name), h.mask.Text(step.Error)
		if s := h.steps[step.ID]; s != nil && step.Completed != nil {
			_ = s.Close() // into memory
			say(step.ID, *step.Completed)
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
