package runner

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"slipway/pipeline"
	"slipway/runner/wire"
)

// Exec runs the request's command and streams its output to out. A sandbox runs
// one command in its life. Start in the Result counts from the call.
func (s *Sandbox) Exec(ctx context.Context, out io.Writer) (pipeline.Result, error) {
	return s.exec(ctx, monotonic(), out)
}

// run is what became known while the command ran.
type run struct {
	done     *wire.Done
	refused  *wire.Refused
	started  int64 // nanoseconds of CLOCK_MONOTONIC; 0: it never did
	timedOut bool
	canceled bool
	silent   bool // the agent's socket ended without a record
	received int64
}

// exec does what Exec says, with Start counted from entered.
func (s *Sandbox) exec(ctx context.Context, entered int64, out io.Writer) (pipeline.Result, error) {
	if s.used {
		return pipeline.Result{}, fmt.Errorf("sandbox of %s: it has run its one command already", s.req.ID)
	}
	s.used = true
	var nonce wire.Nonce
	_, _ = rand.Read(nonce[:]) // never fails
	r, w, err := os.Pipe()
	if err != nil {
		return pipeline.Result{}, fmt.Errorf("run %s: %w", s.req.ID, err)
	}
	x := s.req.exec(s.root.Config, nonce)
	x.Resolv = s.resolv
	err = s.ask(wire.Encode(x), w)
	drop(w)
	if err != nil {
		drop(r)
		return pipeline.Result{}, s.broken(ctx, err)
	}
	store := newStore(out)
	copied := make(chan error, 1)
	go func() {
		defer drop(r)
		_, err := io.Copy(store, onlyReader{r})
		copied <- err
	}()
	got := s.follow(ctx, nonce)
	if got.silent {
		_ = r.SetReadDeadline(time.Now().Add(drainLimit)) // what it had written still arrives
	}
	if err := <-copied; err != nil {
		return pipeline.Result{}, fmt.Errorf("run %s: read its output: %w", s.req.ID, err)
	}
	if err := store.finish(); err != nil {
		return pipeline.Result{}, fmt.Errorf("run %s: pass its output on: %w", s.req.ID, err)
	}
	got.received = store.received
	return s.verdict(ctx, entered, got)
}

// drainLimit is how long output may go on after the agent's end: its pipe is
// closed then, unless the kernel cannot end one of the processes.
const drainLimit = 30 * time.Second

// onlyReader hides the file's own way of copying: the store must see every byte.
type onlyReader struct{ io.Reader }

// ask sends a frame to the agent, with a file beside its first byte.
func (s *Sandbox) ask(frame []byte, pass *os.File) error {
	oob := unix.UnixRights(int(pass.Fd()))
	n, _, err := s.agent.WriteMsgUnix(frame[:min(len(frame), 4096)], oob, nil)
	if err == nil && n < len(frame) {
		_, err = s.agent.Write(frame[n:])
	}
	return err
}

// Grace given to a stop: the agent kills everything at once, then sends what
// output there still is. An agent that does not answer is killed itself.
const stopGrace = 5 * time.Second

// follow waits for the command's end, and brings it about when its time is up
// or ctx ends.
func (s *Sandbox) follow(ctx context.Context, nonce wire.Nonce) *run {
	got := &run{}
	type news struct {
		body wire.Body
		err  error
	}
	frames := make(chan news)
	go func() {
		defer close(frames)
		for {
			body, err := s.read()
			frames <- news{body, err}
			if err != nil {
				return
			}
			switch body.(type) {
			case *wire.Done, *wire.Refused:
				return
			}
		}
	}()
	late := time.NewTimer(s.timeout())
	defer late.Stop()
	var grace <-chan time.Time
	stop := func() {
		late.Stop()
		_, _ = s.agent.Write(wire.Encode(&wire.Stop{})) // an agent that cannot be asked is killed after the grace
		grace = time.After(stopGrace)
	}
	canceled := ctx.Done()
	for {
		select {
		case n, ok := <-frames:
			if !ok {
				return got
			}
			s.note(got, n.body, n.err, nonce)
		case <-late.C:
			got.timedOut = true
			canceled = nil
			stop()
		case <-canceled:
			got.canceled = true
			canceled = nil
			stop()
		case <-grace:
			grace = nil
			s.kill()
		}
	}
}

// timeout of the command.
func (s *Sandbox) timeout() time.Duration {
	if t := s.req.Test.Timeout; t > 0 {
		return t
	}
	return defaultTimeout
}

// note takes one frame in. A frame that does not carry this request's nonce is
// as good as none.
func (s *Sandbox) note(got *run, body wire.Body, err error, nonce wire.Nonce) {
	switch b := body.(type) {
	case *wire.Started:
		if b.Nonce == nonce {
			got.started = b.At
		}
	case *wire.Done:
		if b.Nonce == nonce {
			got.done, got.started = b, b.Started
		}
	case *wire.Refused:
		if b.Nonce == nonce {
			got.refused = b
		}
	}
	if err != nil {
		got.silent = true
		s.kill() // it holds our pipe open as long as it lives
	}
}

// read takes one frame from the agent.
func (s *Sandbox) read() (wire.Body, error) {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(s.agent, head[:]); err != nil {
		return nil, err
	}
	kind, size, err := wire.ParseHeader(head[:])
	if err != nil {
		return nil, err
	}
	var body wire.Body
	switch kind {
	case wire.KindStarted:
		body = &wire.Started{}
	case wire.KindDone:
		body = &wire.Done{}
	case wire.KindRefused:
		body = &wire.Refused{}
	default:
		return nil, wire.ErrMalformed
	}
	if size > 64<<10 {
		return nil, wire.ErrMalformed
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(s.agent, data); err != nil {
		return nil, err
	}
	return body, wire.Decode(data, body)
}

// kill ends everything in the sandbox at once.
func (s *Sandbox) kill() {
	ctx, cancel := context.WithTimeout(context.Background(), removeLimit)
	defer cancel()
	// A helper that is gone cannot be asked, and then the agents are cut off.
	_, _ = s.runner.helper.call(ctx, wire.Call{Op: wire.Kill, ID: s.id}, nil)
	s.cut()
}

// broken is the error of a sandbox that ended where it should not have.
func (s *Sandbox) broken(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(err, cause)
	}
	return fmt.Errorf("run %s: the sandbox broke: %w", s.req.ID, err)
}

// foreign reports an image that was built for another machine.
func (s *Sandbox) foreign() bool {
	return s.root.Architecture != "" && !slices.Contains([]string{runtime.GOARCH, "all"}, s.root.Architecture)
}
