package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"slipway/pipeline"
	"slipway/runner/wire"
)

// Exec runs the request's command and streams its output to out. A sandbox runs
// one command in its life. Start in the Result counts from since. ctx covers the
// run: when it ends, everything in the sandbox is killed and the Result is Canceled.
func (s *Sandbox) Exec(ctx context.Context, since time.Time, out io.Writer) (pipeline.Result, error) {
	entered := monotonic() - int64(time.Since(since))
	if s.used {
		return pipeline.Result{}, fmt.Errorf("sandbox of %s: it has run its one command already", s.req.ID)
	}
	s.used = true
	if s.group != nil {
		return s.execBesideServices(ctx, entered, out)
	}
	return s.execAlone(ctx, entered, out)
}

// Await waits until the test's services are ready, or one has failed, which Exec
// tells. Exec waits by itself where nobody has.
func (s *Sandbox) Await(ctx context.Context) error {
	if s.group == nil {
		return nil
	}
	_, err := s.group.wait(ctx)
	return err
}

// Healthy is when the last of the test's services was ready; zero without
// services, and before Await has returned.
func (s *Sandbox) Healthy() time.Time {
	if s.group == nil || s.group.readyAt == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(s.group.readyAt - monotonic()))
}

// execBesideServices waits for the services first: Start counts from then on. A
// service that fails ends the test, and is the reason.
func (s *Sandbox) execBesideServices(ctx context.Context, entered int64, out io.Writer) (pipeline.Result, error) {
	failed, err := s.group.wait(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return canceled(ctx), nil
	case err != nil:
		return pipeline.Result{}, err
	case failed != nil:
		s.group.show(out, failed.name)
		return pipeline.Result{State: pipeline.Failed, ExitCode: 128 + int(unix.SIGKILL), Reason: failed.Error()}, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.group.ctx, func() { cancel(context.Cause(s.group.ctx)) })()
	res, err := s.execAlone(ctx, max(entered, s.group.readyAt), out)
	s.group.finish()
	failed, broken := s.group.verdict()
	switch {
	case err != nil || broken != nil:
		return pipeline.Result{}, errors.Join(err, broken)
	case failed != nil:
		res.State, res.Reason = pipeline.Failed, failed.Error()
		s.group.show(out, failed.name)
	case res.State == pipeline.Failed:
		s.group.show(out, "")
	}
	return res, nil
}

// execAlone runs the command, whatever is beside it.
func (s *Sandbox) execAlone(ctx context.Context, entered int64, out io.Writer) (pipeline.Result, error) {
	output, w, err := newOutput(out, maxOutput)
	if err != nil {
		return pipeline.Result{}, fmt.Errorf("run %s: %w", s.req.ID, err)
	}
	x := s.req.exec(s.root.Config)
	x.Resolv = s.resolv
	news, err := s.talk.begin(x, w)
	drop(w)
	if err != nil {
		<-output.done //nolint:errcheck // its error is a consequence of this one
		return pipeline.Result{}, s.broken(ctx, err)
	}
	got := s.follow(ctx, news)
	if got.silent {
		_ = output.r.SetReadDeadline(time.Now().Add(drainLimit)) // what it had written still arrives
	}
	if err := <-output.done; err != nil {
		return pipeline.Result{}, fmt.Errorf("run %s: read its output: %w", s.req.ID, err)
	}
	if err := output.store.finish(); err != nil {
		return pipeline.Result{}, fmt.Errorf("run %s: pass its output on: %w", s.req.ID, err)
	}
	got.received = output.store.received
	return s.verdict(ctx, entered, got)
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

// drainLimit is how long output may go on after the agent's end: its pipe is
// closed then, unless the kernel cannot end one of the processes.
const drainLimit = 30 * time.Second

// Grace given to a stop: the agent kills everything at once, then sends what
// output there still is. An agent that does not answer is killed itself.
const stopGrace = 5 * time.Second

// follow waits for the command's end, and brings it about when its time is up
// or ctx ends.
func (s *Sandbox) follow(ctx context.Context, news <-chan wire.Body) *run {
	got := &run{}
	late := time.NewTimer(s.timeout())
	defer late.Stop()
	var grace <-chan time.Time
	stop := func() {
		late.Stop()
		_ = s.talk.send(&wire.Stop{}) // an agent that cannot be asked is killed after the grace
		grace = time.After(stopGrace)
	}
	canceled := ctx.Done()
	for {
		select {
		case body := <-news:
			if got.note(body) {
				return got
			}
		case <-s.talk.ended:
			if len(news) > 0 {
				continue // what it said before its end counts
			}
			got.silent = true
			s.kill() // it holds our pipe open as long as it lives
			return got
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

// note takes in what the agent said of the command, and reports whether that was the last.
func (got *run) note(body wire.Body) bool {
	switch b := body.(type) {
	case *wire.Started:
		got.started = b.At
	case *wire.Done:
		got.done, got.started = b, b.Started
		return true
	case *wire.Refused:
		got.refused = b
		return true
	}
	return false
}

// kill ends everything in the sandbox at once.
func (s *Sandbox) kill() {
	ctx, cancel := context.WithTimeout(context.Background(), removeLimit)
	defer cancel()
	// A helper that is gone cannot be asked, and then the agents are cut off.
	_, _ = s.runner.helper.call(ctx, wire.Call{Op: wire.Kill, ID: s.id})
	s.talk.cut()
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
