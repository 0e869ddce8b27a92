package runner

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"slipway/pipeline"
	"slipway/runner/wire"
)

// verdict turns what is known into a Result: the completion record, the
// cgroup's counters and the disk watch's word. What it cannot prove is an error.
func (s *Sandbox) verdict(ctx context.Context, entered int64, got *run) (pipeline.Result, error) {
	var counts wire.Counters
	reply, merr := s.runner.helper.call(context.WithoutCancel(ctx), wire.Call{Op: wire.Measure, ID: s.id})
	if merr == nil {
		counts = *reply.Counts
	}
	res := pipeline.Result{
		OOM: counts.OOMKills > 0, DiskFull: counts.Disk != "", TimedOut: got.timedOut,
		PeakMemory: counts.PeakMemory, CPU: time.Duration(counts.CPU), OutputSize: got.received,
	}
	if got.started > 0 {
		res.Start = time.Duration(got.started - entered)
		res.Duration = time.Duration(monotonic() - got.started)
	}
	if got.done != nil {
		res.ExitCode = int(got.done.Exit)
		res.Duration = time.Duration(got.done.Ended - got.done.Started)
	}
	if err := s.judge(ctx, got, counts, &res); err != nil {
		return pipeline.Result{}, err
	}
	if merr != nil {
		return pipeline.Result{}, s.broken(ctx, merr)
	}
	if s.req.Out != "" && res.State != pipeline.Canceled {
		if err := keep(s.made.Out, s.req.Out); err != nil {
			var u *unkeepable
			if !errors.As(err, &u) {
				return pipeline.Result{}, fmt.Errorf("run %s: keep /out: %w", s.req.ID, err)
			}
			if res.State == pipeline.Passed {
				res.State, res.Reason = pipeline.Failed, u.Error()
			}
		}
	}
	return res, nil
}

// judge decides the state, most particular reason first.
func (s *Sandbox) judge(ctx context.Context, got *run, counts wire.Counters, res *pipeline.Result) error {
	killed := func(why string) {
		res.State, res.Reason = pipeline.Failed, why
		if got.done == nil || got.done.Interrupted || got.done.Exit == 0 {
			res.ExitCode = 128 + int(unix.SIGKILL)
		}
	}
	limits := complete(s.req.Test.Resources, s.runner.opts.Defaults)
	switch {
	case got.canceled && (got.done == nil || got.done.Interrupted):
		*res = withFigures(canceled(ctx), *res)
	case got.refused != nil:
		res.State, res.ExitCode, res.Reason = pipeline.Failed, int(got.refused.Exit), s.whyRefused(got.refused.Reason)
	case res.DiskFull:
		killed("stopped: " + counts.Disk)
	case got.timedOut && (got.done == nil || got.done.Interrupted):
		killed(fmt.Sprintf("stopped after its time limit of %s; raise `timeout` if it needs longer", s.timeout()))
	case got.done == nil && res.OOM:
		killed(outOfMemory(limits.Memory))
	case got.done == nil:
		return s.broken(ctx, errSilent)
	case got.done.Lost:
		return s.broken(ctx, errors.New("something outside it still holds its output"))
	case int64(got.done.Bytes) != got.received:
		return s.broken(ctx, fmt.Errorf("its agent sent %d bytes of output, and %d arrived", got.done.Bytes, got.received))
	case got.done.Exit == 0:
		res.State, res.TimedOut = pipeline.Passed, false
	default:
		res.State, res.TimedOut = pipeline.Failed, false
		res.Reason = whyFailed(got.done, counts, limits)
	}
	return nil
}

// whyFailed is a sentence about a command that ended by itself, badly.
func whyFailed(d *wire.Done, counts wire.Counters, limits pipeline.Resources) string {
	switch {
	case counts.OOMKills > 0:
		return outOfMemory(limits.Memory)
	case counts.PidsDenied > 0:
		return fmt.Sprintf("exit code %d; it reached its limit of %d processes (resources: pids)", d.Exit, limits.Pids)
	case d.Signal != 0:
		return fmt.Sprintf("ended by %s (exit code %d)", unix.SignalName(unix.Signal(d.Signal)), d.Exit)
	}
	return fmt.Sprintf("exit code %d", d.Exit)
}

func outOfMemory(limit int64) string {
	return fmt.Sprintf("out of memory: the kernel killed in it at the limit of %d MiB (resources: memory)", limit>>20)
}

func (s *Sandbox) whyRefused(why string) string {
	if s.foreign() {
		return fmt.Sprintf("%s (the image is for %s, this machine is %s)", why, s.root.Architecture, runtime.GOARCH)
	}
	return why
}

// canceled is the result of a run whose context ended.
func canceled(ctx context.Context) pipeline.Result {
	return pipeline.Result{State: pipeline.Canceled, ExitCode: 128 + int(unix.SIGKILL), Reason: "canceled: " + context.Cause(ctx).Error()}
}

// withFigures gives r the measurements of m.
func withFigures(r, m pipeline.Result) pipeline.Result {
	r.Start, r.Duration, r.PeakMemory, r.CPU, r.OutputSize = m.Start, m.Duration, m.PeakMemory, m.CPU, m.OutputSize
	return r
}
