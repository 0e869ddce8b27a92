package progress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"

	"slipway/pipeline"
)

// Mode is how a Display draws.
type Mode string

// The modes; the zero value is Auto.
const (
	Auto  Mode = "auto"  // TTY on a terminal, else Plain
	TTY   Mode = "tty"   // live, redrawn in place
	Plain Mode = "plain" // a line per piece of news: "#5 [api] [2/5] RUN make"
	Quiet Mode = "quiet" // nothing
)

// Options of a Display; the zero value is good.
type Options struct {
	Mode    Mode
	NoColor bool   // see https://no-color.org/; the command reads the variable
	Title   string // word before the clock of a terminal; "Running" when empty
}

// queue is how many messages may wait for a slow terminal before producers wait
// too; grace is how long Close waits for a stuck one after a cancel.
const (
	queue = 256
	grace = time.Second
)

// Display draws the progress of every task of a run. Its methods may be called
// from any goroutine.
type Display struct {
	over     <-chan struct{} // the run's ctx: once closed, a stuck terminal holds nobody up
	messages chan *client.SolveStatus
	drawn    chan struct{} // closed when the last line is written
	out      *output
	live     bool // drawn in place, so that long output must be thinned

	mu     sync.Mutex
	steps  map[string]*step // by Step.ID
	closed bool
	sends  sync.WaitGroup // Writes under way
}

// New starts a display on w; Close ends it. A slow w slows producers down; once
// ctx is done it does so no longer, and what does not fit is dropped. The error
// says that TTY was asked for and w is no terminal.
func New(ctx context.Context, w io.Writer, o Options) (*Display, error) {
	if o.Title == "" {
		o.Title = "Running"
	}
	out := newOutput(w, o.NoColor)
	target, mode, err := choose(out, o.Mode)
	if err != nil {
		return nil, err
	}
	ui, err := progressui.NewDisplay(target, progressui.DisplayMode(mode), progressui.WithPhase(o.Title))
	if err != nil {
		return nil, fmt.Errorf("progress mode %q: %w; use auto, tty, plain or quiet", o.Mode, err)
	}
	d := &Display{
		over: ctx.Done(), out: out, live: mode == TTY,
		messages: make(chan *client.SolveStatus, queue),
		drawn:    make(chan struct{}),
		steps:    map[string]*step{},
	}
	go func() {
		defer close(d.drawn)
		// Close ends it, not ctx: a cancelled run still has its last lines drawn.
		_, _ = ui.UpdateFrom(context.WithoutCancel(ctx), d.messages)
	}()
	return d, nil
}

// choose settles Auto and checks TTY.
func choose(out *output, mode Mode) (io.Writer, Mode, error) {
	switch mode {
	case Plain, Quiet:
		return out, mode, nil
	case "", Auto, TTY:
		if t := out.terminal(); t != nil {
			return t, TTY, nil
		}
		if mode == TTY {
			return nil, mode, errors.New("live progress was asked for, but the output is not a terminal; use plain or auto")
		}
		return out, Plain, nil
	default:
		return nil, mode, fmt.Errorf("there is no progress mode %q; use auto, tty, plain or quiet", mode)
	}
}

// Write shows p. It copies what it keeps. After Close it does nothing.
func (d *Display) Write(p pipeline.Progress) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return
	}
	d.sends.Add(1)
	s := d.translate(p)
	d.mu.Unlock()
	defer d.sends.Done()
	d.send(s)
}

// send prefers the queue to giving up, also when the run is over.
func (d *Display) send(s *client.SolveStatus) {
	select {
	case d.messages <- s:
		return
	default:
	}
	select {
	case d.messages <- s:
	case <-d.over:
	}
}

// Close draws what is left, shows steps that have not ended as cancelled, and
// waits until all of it is written. The error is the writer's first one, or
// says that the terminal takes no output.
func (d *Display) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		<-d.drawn
		return d.out.err()
	}
	d.closed = true
	last := d.unfinished()
	d.mu.Unlock()
	d.sends.Wait()
	if len(last.Vertexes) > 0 {
		d.send(last)
	}
	close(d.messages)
	select {
	case <-d.drawn:
		return d.out.err()
	case <-d.over:
	}
	select {
	case <-d.drawn:
		return d.out.err()
	case <-time.After(grace):
		return errors.New("the terminal takes no output; its last lines are lost")
	}
}

// unfinished ends every step still open, so that its output is drawn too.
// The caller holds d.mu.
func (d *Display) unfinished() *client.SolveStatus {
	s := &client.SolveStatus{}
	now := time.Now()
	for _, st := range d.steps {
		if st.Started == nil || st.Completed != nil {
			continue
		}
		s.Logs = append(s.Logs, st.rest()...)
		end := *st.Vertex
		if st.unannounced {
			end.Completed = &st.latest
		} else {
			end.Completed, end.Error = &now, context.Canceled.Error()
		}
		s.Vertexes = append(s.Vertexes, &end)
	}
	return s
}
