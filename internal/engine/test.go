package engine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/store"
	"slipway/pipeline"
)

// test runs one test, or finds that the same test of the same image has passed
// before with everything it can see unchanged.
func (c *conductor) test(ctx context.Context, task pipeline.Task, out *outcome) {
	image := c.imageUnder(task)
	key, why, err := c.reuseKey(ctx, c.plan, task, image.Descriptor.Digest)
	if err != nil {
		out.end(pipeline.Error, err.Error())
		return
	}
	if why == "" && !c.opt.RerunTests && !c.opt.NoCache {
		if past, ok := c.Store.Test(key); ok {
			c.reuse(task, past, out)
			return
		}
	}
	c.attempts(ctx, task, image, out)
	if out.state == pipeline.Passed && why == "" && !out.test.Flaky {
		if err := c.Store.PutTest(key, store.PassedTest{Run: c.opt.ID, Test: *out.test, At: time.Now().UTC()}); err != nil {
			c.Log.Warn().Err(err).Str("task", task.ID).Msg("result not recorded")
		}
	}
}

// reuseKey identifies all that a test depends on. A reason instead of a key says
// why its result is never reused.
func (e *Engine) reuseKey(ctx context.Context, plan pipeline.Plan, task pipeline.Task, image digest.Digest) (digest.Digest, string, error) {
	t := task.Test
	switch {
	case t.NoCache:
		return "", "cache: false", nil
	case t.Network == pipeline.NetworkInternet:
		return "", "it reaches the internet", nil
	case len(t.Secrets) > 0:
		return "", "it uses secrets", nil
	}
	fixtures, err := e.Fixtures(ctx, *t)
	if err != nil {
		return "", "", err
	}
	return digest.FromString(strings.Join([]string{"test v1", image.String(), plan.Definition(task).String(), fixtures.String()}, "\n")), "", nil
}

func (c *conductor) reuse(task pipeline.Task, past store.PassedTest, out *outcome) {
	t := past.Test
	t.ReusedFrom, t.StartMS, t.Attempts = past.Run, nil, 0
	out.test = &t
	out.end(pipeline.Passed, "")
	now := time.Now()
	step := pipeline.Step{ID: task.ID, Name: c.title(task) + " (passed in run " + past.Run + ")", Started: &now, Completed: &now, Cached: true}
	c.Progress(pipeline.Progress{Task: task.ID, Steps: []pipeline.Step{step}})
}

// title is how a test is shown: its command, shortened.
func (c *conductor) title(task pipeline.Task) string {
	argv := task.Test.Command
	if len(argv) == 3 && argv[0] == "/bin/sh" && argv[1] == "-c" {
		argv = argv[2:]
	}
	title := strings.Join(strings.Fields(strings.Join(argv, " ")), " ")
	if title == "" {
		title = "the image's own command"
	}
	if r := []rune(title); len(r) > 72 {
		title = string(r[:71]) + "…"
	}
	return "test " + title
}

// attempts runs a test until it passes, its retries are used up, or slipway has
// failed too often itself.
func (c *conductor) attempts(ctx context.Context, task pipeline.Task, image pipeline.Image, out *outcome) {
	retries, broken := task.Test.Retry, own
	for attempt := 1; ; attempt++ {
		res, junit, err := c.attempt(ctx, task, image, attempt)
		out.test = testRecord(task.Test.Name, res, junit)
		out.test.Attempts = attempt
		switch {
		case ctx.Err() != nil || res.State == pipeline.Canceled:
			out.end(pipeline.Canceled, cause(ctx, res.Reason))
		case err != nil:
			out.end(pipeline.Error, err.Error())
			c.Log.Warn().Err(err).Str("task", task.ID).Int("attempt", attempt).Msg("sandbox broke")
			if broken > 0 {
				broken--
				continue
			}
		case res.State == pipeline.Passed:
			out.test.Flaky = attempt > 1 && retries < task.Test.Retry
			out.end(pipeline.Passed, "")
		default:
			out.end(res.State, res.Reason)
			if retries > 0 {
				retries--
				continue
			}
		}
		out.test.State, out.test.Reason = out.state, out.reason
		return
	}
}

func cause(ctx context.Context, otherwise string) string {
	if err := context.Cause(ctx); err != nil {
		return err.Error()
	}
	return otherwise
}

// attempt runs a test once, its output going to the screen and to the run's log.
func (c *conductor) attempt(ctx context.Context, task pipeline.Task, image pipeline.Image, n int) (pipeline.Result, *store.JUnit, error) {
	dir := filepath.Join(c.Store.RunDir(c.opt.ID), TaskDir(task.ID))
	out := filepath.Join(dir, "out")
	if n > 1 {
		dir = filepath.Join(dir, fmt.Sprint("attempt-", n))
		out = filepath.Join(dir, "out")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return pipeline.Result{}, nil, fmt.Errorf("keep the log of %s: %w", task.ID, err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return pipeline.Result{}, nil, fmt.Errorf("keep the log of %s: %w", task.ID, err)
	}
	defer log.Close()

	step := pipeline.Step{ID: task.ID, Name: c.title(task)}
	if n > 1 {
		step.ID, step.Name = fmt.Sprint(task.ID, " attempt ", n), fmt.Sprint(step.Name, " (attempt ", n, ")")
	}
	now := time.Now()
	step.Started = &now
	c.Progress(pipeline.Progress{Task: task.ID, Steps: []pipeline.Step{step}})
	res, err := c.Test(ctx, TestRequest{Run: c.opt.ID, Task: task, Image: image, Attempt: n, Out: out},
		io.MultiWriter(log, &stepWriter{step: step.ID, task: task.ID, to: c.Progress}))
	end := time.Now()
	step.Completed = &end
	switch {
	case err != nil:
		step.Error = err.Error()
	case res.State != pipeline.Passed:
		step.Error = res.Reason
	}
	c.Progress(pipeline.Progress{Task: task.ID, Steps: []pipeline.Step{step}})
	return res, readReports(out, task.Test.JUnit), err
}

// TaskDir is the name of a task's directory within its run's.
func TaskDir(id string) string { return url.PathEscape(id) }

// stepWriter shows a test's output as the log of its step.
type stepWriter struct {
	task, step string
	to         func(pipeline.Progress)
}

func (w *stepWriter) Write(p []byte) (int, error) {
	w.to(pipeline.Progress{Task: w.task, Logs: []pipeline.StepLog{{Step: w.step, Data: bytes.Clone(p), Time: time.Now()}}})
	return len(p), nil
}

func testRecord(name string, res pipeline.Result, junit *store.JUnit) *store.Test {
	t := &store.Test{
		Name: name, State: res.State, OOM: res.OOM, TimedOut: res.TimedOut, DiskFull: res.DiskFull,
		DurationMS: res.Duration.Milliseconds(), PeakMemory: res.PeakMemory, CPUMS: res.CPU.Milliseconds(), JUnit: junit,
	}
	if res.State == pipeline.Passed || res.State == pipeline.Failed {
		exit, start := res.ExitCode, float64(res.Start.Microseconds())/1000
		t.ExitCode, t.StartMS = &exit, &start
	}
	return t
}

// TaskOf is the inverse of TaskDir.
func TaskOf(dir string) string {
	id, err := url.PathUnescape(dir)
	if err != nil {
		return dir
	}
	return id
}
