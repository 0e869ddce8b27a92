package engine

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"slipway/internal/schedule"

	"slipway/internal/store"
	"slipway/pipeline"
)

// conductor holds the state of one run: a slot per task, written by the task's
// own goroutine and read by others only after its done channel is closed.
type conductor struct {
	*Engine
	plan    pipeline.Plan
	opt     Options
	tasks   []outcome
	ahead   ahead
	fetches fetches
	records sync.WaitGroup // builds being recorded
}

type outcome struct {
	done   chan struct{}
	state  pipeline.State
	reason string
	built  Built  // of a build
	inputs Inputs // of a build; to be read when everything is recorded
	took   time.Duration
	ended  time.Time
	test   *store.Test // of a test

	fixtures    digest.Digest // of a test, as found before it ran
	attestation digest.Digest // of what came of it
	past        bool          // it was taken over from an earlier attempt, and so was that
}

func newConductor(e *Engine, plan pipeline.Plan, opt Options) *conductor {
	c := &conductor{Engine: e, plan: plan, opt: opt, tasks: make([]outcome, len(plan.Tasks))}
	c.ahead.spots = make([]spot, len(plan.Tasks))
	for i := range c.tasks {
		c.tasks[i].done = make(chan struct{})
	}
	return c
}

// conduct runs every task as soon as what it needs is there and the machine has
// room for it, and waits for all. Tasks that become ready together line up in
// the order of the plan.
func (c *conductor) conduct(ctx context.Context) {
	c.fetchAll(ctx)
	defer c.fetches.stop()
	ended := make(chan int)
	started, running := make([]bool, len(c.tasks)), 0
	for next := true; next; {
		for i := range c.tasks {
			if started[i] || !c.ready(i) {
				continue
			}
			started[i] = true
			if c.stopped(i) {
				c.close(ctx, i) // those that need it come later in this loop
				continue
			}
			running++
			ticket := c.Machine.Queue(i, share(c.plan, c.plan.Tasks[i]))
			go func() {
				c.task(ctx, i, ticket)
				ended <- i
			}()
		}
		if next = running > 0; next {
			c.close(ctx, <-ended)
			running--
		}
	}
	c.ahead.work.Wait()
	c.records.Wait()
}

// close makes the outcome of a task known.
func (c *conductor) close(ctx context.Context, i int) {
	close(c.tasks[i].done)
	c.settle(ctx, i)
}

// ready reports whether all that a task needs has ended.
func (c *conductor) ready(i int) bool {
	for _, n := range c.plan.Tasks[i].Needs {
		select {
		case <-c.tasks[n].done:
		default:
			return false
		}
	}
	return true
}

// stopped ends a task that does not run: its event skips it, or what it needs
// has not passed.
func (c *conductor) stopped(i int) bool {
	task, out := c.plan.Tasks[i], &c.tasks[i]
	if task.Skip != "" {
		out.end(pipeline.Skipped, task.Skip)
		return true
	}
	for _, n := range task.Needs {
		// A needed image that the event skips is still built by those who need it:
		// pipeline.Expand leaves no such gap, so whatever is not passed stops here.
		if need := &c.tasks[n]; need.state != pipeline.Passed {
			out.end(skipLike(need.state), fmt.Sprintf("needs %s, which %s", c.plan.Tasks[n].ID, verb(need.state)))
			return true
		}
	}
	return false
}

// task runs a task when its turn comes.
func (c *conductor) task(ctx context.Context, i int, ticket *schedule.Ticket) {
	task, out := c.plan.Tasks[i], &c.tasks[i]
	leave, err := ticket.Enter(ctx)
	if err != nil {
		out.end(pipeline.Canceled, err.Error())
		return
	}
	defer leave()
	if task.Kind == pipeline.BuildTask {
		c.build(ctx, task, out)
	} else {
		c.test(ctx, i, out)
	}
	out.reason = c.Mask.Text(out.reason) // it may quote what a command said
}

func (o *outcome) end(s pipeline.State, reason string) { o.state, o.reason = s, reason }

// skipLike is the state of a task whose need ended in s.
func skipLike(s pipeline.State) pipeline.State {
	if s == pipeline.Canceled {
		return pipeline.Canceled
	}
	return pipeline.Skipped
}

func verb(s pipeline.State) string {
	switch s {
	case pipeline.Skipped:
		return "was skipped"
	case pipeline.Canceled:
		return "was canceled"
	case pipeline.Error:
		return "could not be run"
	default:
		return string(s)
	}
}

// built gives the images that the builds a task needs have made, by task ID.
func (c *conductor) built(task pipeline.Task) map[string]pipeline.Image {
	images := map[string]pipeline.Image{}
	for _, n := range task.Needs {
		if need := c.plan.Tasks[n]; need.Kind == pipeline.BuildTask {
			images[need.ID] = c.tasks[n].built.Image
		}
	}
	return images
}

// imagesOf gives the images of the builds that a test needs, by task ID: its own,
// which may be one that is only expected, and those of services and volumes.
func (c *conductor) imagesOf(task pipeline.Task, own pipeline.Image) map[string]pipeline.Image {
	images := map[string]pipeline.Image{}
	for _, n := range task.Needs {
		need := c.plan.Tasks[n]
		switch {
		case need.Kind != pipeline.BuildTask:
		case owner(need) == owner(task):
			images[need.ID] = own
		default:
			images[need.ID] = c.tasks[n].built.Image
		}
	}
	return images
}

// imageUnder gives the image that a test tests.
func (c *conductor) imageUnder(task pipeline.Task) pipeline.Image {
	for _, n := range task.Needs {
		if need := c.plan.Tasks[n]; need.Kind == pipeline.BuildTask && owner(need) == owner(task) {
			return c.tasks[n].built.Image
		}
	}
	return pipeline.Image{}
}

// images tells what became of each image, in the order of the plan.
func (c *conductor) images() []store.Image {
	var images []store.Image
	of := map[string]int{}
	for i, task := range c.plan.Tasks {
		out := &c.tasks[i]
		if task.Kind == pipeline.BuildTask {
			of[owner(task)] = len(images)
			images = append(images, imageOf(task, out))
			continue
		}
		t := store.Test{Name: task.Test.Name, State: out.state, Reason: out.reason}
		if out.test != nil {
			t = *out.test
		}
		t.Attestation = out.attestation.String()
		im := &images[of[owner(task)]]
		im.Tests = append(im.Tests, t)
	}
	return images
}

// owner names the image and matrix combination a task belongs to.
func owner(t pipeline.Task) string { return fmt.Sprint(t.Image, t.Matrix) } // maps print sorted by key

func imageOf(task pipeline.Task, out *outcome) store.Image {
	im := store.Image{
		Name: task.Image, Matrix: maps.Clone(task.Matrix), State: string(out.state), Reason: out.reason,
		BuildMS: out.took.Milliseconds(), Tests: []store.Test{},
	}
	if out.state == pipeline.Passed {
		im.State = "built"
		if out.built.Cached {
			im.State = "cached"
		}
		im.Repository = out.built.Image.Repository
		im.Digest = out.built.Image.Descriptor.Digest.String()
		im.Platforms = out.built.Platforms
		im.Provenance = out.attestation.String()
	}
	return im
}

// verdict sums the tasks up: the worst state wins.
func (c *conductor) verdict(ctx context.Context) (pipeline.State, string) {
	if ctx.Err() != nil {
		return pipeline.Canceled, context.Cause(ctx).Error()
	}
	for _, s := range []pipeline.State{pipeline.Error, pipeline.Canceled, pipeline.Failed} {
		for i := range c.tasks {
			if c.tasks[i].state == s {
				return s, c.plan.Tasks[i].ID + ": " + c.tasks[i].reason
			}
		}
	}
	return pipeline.Passed, ""
}
