package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/store"
	"slipway/pipeline"
)

// test runs one test, or finds that the same test of the same image has passed
// before with everything it can see unchanged.
func (c *conductor) test(ctx context.Context, i int, out *outcome) {
	task := c.plan.Tasks[i]
	image := c.imageUnder(task)
	if c.past(task, image, out) {
		return
	}
	found, err := c.lookup(ctx, task, image)
	var absent *unfetchable
	switch {
	case ctx.Err() != nil:
		out.end(pipeline.Canceled, context.Cause(ctx).Error())
		return
	case errors.As(err, &absent):
		out.end(pipeline.Failed, err.Error())
		return
	case err != nil:
		out.end(pipeline.Error, err.Error())
		return
	}
	out.fixtures = found.fixtures
	if found.past != nil {
		c.reuse(task, *found.past, out)
		return
	}
	c.attempts(ctx, i, image, found.services, out)
	out.ended = time.Now()
	if c.opt.Forget {
		return
	}
	if out.state == pipeline.Failed && found.key != "" { // an older pass says nothing any more
		c.records.Go(func() { c.forgetTest(task, found.key) })
	}
	if out.state == pipeline.Passed && found.key != "" && !out.test.Flaky {
		c.records.Go(func() { c.recordTest(ctx, task, found, *out.test) })
	}
}

// finding is what the records say of a test.
type finding struct {
	services map[string]Service
	digests  map[string]digest.Digest // of the builds it needs
	key      digest.Digest            // empty: its result is never reused
	fixtures digest.Digest            // empty with the key
	past     *store.PassedTest        // to be reused; nil: it runs
}

func (c *conductor) lookup(ctx context.Context, task pipeline.Task, image pipeline.Image) (f finding, err error) {
	images := c.imagesOf(task, image)
	if f.services, err = c.servicesOf(ctx, task, images); err != nil {
		return f, err
	}
	f.digests = digests(images)
	key, fixtures, why, err := c.reuseKey(ctx, c.plan, task, f.digests, fetchedDigests(f.services))
	if err != nil || why != "" {
		return f, err
	}
	f.key, f.fixtures = key, fixtures
	if c.opt.RerunTests || c.opt.NoCache {
		return f, nil
	}
	if past, ok := c.Store.Test(key); ok {
		f.past = &past
	}
	return f, nil
}

// recordTest records a pass for reuse, unless files that the test saw as they
// are changed after its key was made: then nobody knows which of them it saw.
func (c *conductor) recordTest(ctx context.Context, task pipeline.Task, found finding, t store.Test) {
	if seesFiles(c.plan, task) {
		now, _, _, err := c.reuseKey(context.WithoutCancel(ctx), c.plan, task, found.digests, fetchedDigests(found.services))
		if err != nil || now != found.key {
			return
		}
	}
	if err := c.Store.PutTest(found.key, store.PassedTest{Run: c.opt.ID, Test: t, At: time.Now().UTC()}); err != nil {
		c.Log.Warn().Str("error", c.Mask.Text(err.Error())).Str("task", task.ID).Msg("result not recorded")
	}
}

func digests(images map[string]pipeline.Image) map[string]digest.Digest {
	all := map[string]digest.Digest{}
	for id, im := range images {
		all[id] = im.Descriptor.Digest
	}
	return all
}

// forgetTest drops the record of a pass that a failure has belied.
func (c *conductor) forgetTest(task pipeline.Task, key digest.Digest) {
	if err := c.Store.DropTest(key); err != nil {
		c.Log.Warn().Str("error", c.Mask.Text(err.Error())).Str("task", task.ID).Msg("an older result is not forgotten")
	}
}

// reuseKey identifies all that a test depends on, and the host's part of that.
// images are those of the builds it needs, its own and what services and volumes
// come from, by task ID; fetched those of its other services, by their keys. A
// reason instead of a key says why its result is never reused.
func (e *Engine) reuseKey(ctx context.Context, plan pipeline.Plan, task pipeline.Task, images, fetched map[string]digest.Digest) (key, fixtures digest.Digest, why string, err error) {
	t := task.Test
	switch {
	case t.NoCache:
		return "", "", "cache: false", nil
	case t.Network == pipeline.NetworkInternet:
		return "", "", "it reaches the internet", nil
	case len(t.Secrets) > 0:
		return "", "", "it uses secrets", nil
	}
	if fixtures, err = e.Fixtures(ctx, plan, task); err != nil {
		return "", "", "", err
	}
	parts := []string{"test v2", plan.Definition(task).String(), fixtures.String()}
	for _, id := range slices.Sorted(maps.Keys(images)) {
		parts = append(parts, id, images[id].String())
	}
	for _, key := range slices.Sorted(maps.Keys(fetched)) {
		parts = append(parts, "service", key, fetched[key].String())
	}
	return digest.FromString(strings.Join(parts, "\n")), fixtures, "", nil
}

func (c *conductor) reuse(task pipeline.Task, past store.PassedTest, out *outcome) {
	t := past.Test
	t.ReusedFrom, t.StartMS, t.Attempts = past.Run, nil, 0
	out.test, out.ended = &t, past.At
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
func (c *conductor) attempts(ctx context.Context, i int, image pipeline.Image, services map[string]Service, out *outcome) {
	task := c.plan.Tasks[i]
	retries, broken := task.Test.Retry, own
	for attempt := 1; ; attempt++ {
		res, done, err := c.attempt(ctx, i, c.request(task, image, services, attempt), retries == 0)
		out.test = testRecord(task.Test.Name, res, done.junit)
		out.test.Attempts, out.test.Services, out.test.KeptUntil = attempt, serviceRecords(services), done.kept
		switch {
		case ctx.Err() != nil || res.State == pipeline.Canceled:
			out.end(pipeline.Canceled, cause(ctx, res.Reason))
		case err != nil:
			out.end(pipeline.Error, err.Error())
			c.Log.Warn().Str("error", c.Mask.Text(err.Error())).Str("task", task.ID).Int("attempt", attempt).Msg("sandbox broke")
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
		out.test.State, out.test.Reason = out.state, c.Mask.Text(out.reason)
		return
	}
}

func cause(ctx context.Context, otherwise string) string {
	if err := context.Cause(ctx); err != nil {
		return err.Error()
	}
	return otherwise
}

// request is for one attempt. Attempts after the first have directories of their own.
func (c *conductor) request(task pipeline.Task, image pipeline.Image, services map[string]Service, n int) TestRequest {
	dir := filepath.Join(c.Store.RunDir(c.opt.ID), TaskDir(task.ID))
	if n > 1 {
		dir = filepath.Join(dir, fmt.Sprint("attempt-", n))
	}
	return TestRequest{
		Run: c.opt.ID, Task: task, Image: image, Images: c.imagesOf(task, image), Services: services, Attempt: n, Memory: share(c.plan, task).Memory,
		Out: filepath.Join(dir, "out"), Logs: filepath.Join(dir, ServiceLogs),
	}
}

// left is what an attempt left behind.
type left struct {
	junit *store.JUnit
	kept  *time.Time // until when its sandbox stays; nil: it does not
}

// attempt runs a test once, its output going to the screen and to the run's log.
func (c *conductor) attempt(ctx context.Context, i int, r TestRequest, last bool) (pipeline.Result, left, error) {
	since := time.Now()
	log, err := openLog(r)
	if err != nil {
		return pipeline.Result{}, left{}, err
	}
	defer log.Close()
	step := pipeline.Step{ID: r.Task.ID, Name: c.title(r.Task), Started: &since}
	if r.Attempt > 1 {
		step.ID, step.Name = fmt.Sprint(step.ID, " attempt ", r.Attempt), fmt.Sprint(step.Name, " (attempt ", r.Attempt, ")")
	}
	c.Progress(pipeline.Progress{Task: r.Task.ID, Steps: []pipeline.Step{step}})
	out := c.Mask.Writer(io.MultiWriter(log, &stepWriter{step: step.ID, task: r.Task.ID, to: c.Progress}))
	res, kept, err := c.once(ctx, i, r, since, last, out)
	err = errors.Join(err, out.Close())
	end := time.Now()
	step.Completed = &end
	switch {
	case err != nil:
		step.Error = c.Mask.Text(err.Error())
	case res.State != pipeline.Passed:
		step.Error = c.Mask.Text(res.Reason)
	}
	c.Progress(pipeline.Progress{Task: r.Task.ID, Steps: []pipeline.Step{step}})
	return res, left{c.hideReports(readReports(r.Out, r.Task.Test.JUnit)), kept}, err
}

// once runs a test in a sandbox that it shares with no other attempt. What
// counts as its start begins when the machine has room for it and its services
// are healthy.
func (c *conductor) once(ctx context.Context, i int, r TestRequest, since time.Time, last bool, out io.Writer) (res pipeline.Result, kept *time.Time, err error) {
	s, err := c.sandbox(ctx, i, r)
	if err != nil {
		return res, nil, err
	}
	defer s.Close()
	if s.Healthy.After(since) {
		since = s.Healthy
	}
	res, err = s.Run(ctx, since, out)
	if err == nil && res.State == pipeline.Failed && last && c.opt.KeepFailed && s.Keep != nil {
		until, err := s.Keep(ctx)
		if err == nil {
			return res, &until, nil
		}
		fmt.Fprintf(out, "\n[slipway: the sandbox of this failure is not kept: %v]\n", err) // a log that cannot be written is told of elsewhere
	}
	return res, nil, err
}

func openLog(r TestRequest) (*os.File, error) {
	dir := filepath.Dir(r.Out)
	err := os.MkdirAll(dir, 0o700)
	var log *os.File
	if err == nil {
		log, err = os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the log of %s: %w", r.Task.ID, err)
	}
	return log, nil
}

// ServiceLogs is the directory, within an attempt's, of what its services said.
const ServiceLogs = "services"

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
