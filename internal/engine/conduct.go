package engine

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

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
	records sync.WaitGroup // builds being recorded
}

type outcome struct {
	done   chan struct{}
	state  pipeline.State
	reason string
	built  Built // of a build
	took   time.Duration
	test   *store.Test // of a test
}

func newConductor(e *Engine, plan pipeline.Plan, opt Options) *conductor {
	c := &conductor{Engine: e, plan: plan, opt: opt, tasks: make([]outcome, len(plan.Tasks))}
	for i := range c.tasks {
		c.tasks[i].done = make(chan struct{})
	}
	return c
}

// conduct runs every task as soon as what it needs is there, and waits for all.
func (c *conductor) conduct(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range c.plan.Tasks {
		wg.Go(func() {
			defer close(c.tasks[i].done)
			c.task(ctx, i)
		})
	}
	wg.Wait()
	c.records.Wait()
}

func (c *conductor) task(ctx context.Context, i int) {
	task, out := c.plan.Tasks[i], &c.tasks[i]
	for _, n := range task.Needs {
		<-c.tasks[n].done
	}
	if task.Skip != "" {
		out.end(pipeline.Skipped, task.Skip)
		return
	}
	for _, n := range task.Needs {
		// A needed image that the event skips is still built by those who need it:
		// pipeline.Expand leaves no such gap, so whatever is not passed stops here.
		if need := &c.tasks[n]; need.state != pipeline.Passed {
			out.end(skipLike(need.state), fmt.Sprintf("needs %s, which %s", c.plan.Tasks[n].ID, verb(need.state)))
			return
		}
	}
	leave, err := c.Machine.Enter(ctx, i, share(c.plan, task))
	if err != nil {
		out.end(pipeline.Canceled, err.Error())
		return
	}
	defer leave()
	if task.Kind == pipeline.BuildTask {
		c.build(ctx, task, out)
	} else {
		c.test(ctx, task, out)
	}
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
