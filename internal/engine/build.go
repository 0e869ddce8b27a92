package engine

import (
	"bytes"
	"context"
	"time"

	"slipway/internal/store"
	"slipway/pipeline"
)

// build makes one image. Its inputs are read beside the build, so that the next
// dry run can tell what changed, and recorded while its tests already run.
func (c *conductor) build(ctx context.Context, task pipeline.Task, out *outcome) {
	started := time.Now()
	as := c.opt.Past.Images[task.ID]
	before := make(chan Inputs, 1)
	if as == "" {
		c.records.Go(func() {
			in := c.inputs(ctx, task)
			c.foresee(ctx, task, in)
			before <- in
		})
	}
	req := BuildRequest{Task: task, Bases: c.built(task), As: as, NoCache: c.opt.NoCache, Progress: c.hideProgress()}
	var err error
	for attempt := range own + 1 {
		out.built, err = c.Build(ctx, req)
		if err == nil || ctx.Err() != nil {
			break
		}
		c.Log.Warn().Str("error", c.Mask.Text(err.Error())).Str("task", task.ID).Int("attempt", attempt+1).Msg("build broke")
	}
	out.took, out.ended = time.Since(started), time.Now()
	switch {
	case ctx.Err() != nil:
		out.end(pipeline.Canceled, context.Cause(ctx).Error())
	case err != nil:
		out.end(pipeline.Error, err.Error())
	case out.built.Failure != "":
		out.end(pipeline.Failed, out.built.Failure)
	default:
		out.end(pipeline.Passed, "")
		c.expect(ctx, task, out.built.Image, true)
		if as != "" {
			out.past = true
			return // the inputs are those of now, and it was made of those of then
		}
		c.records.Go(func() {
			out.inputs = <-before
			c.recordBuild(ctx, task, out.inputs, out.built)
		})
	}
}

// foresee begins to prepare the tests of an image that is being built, where the
// records say what these inputs gave before. If something else comes of them
// this time, or nothing, what was prepared is not used: see expect.
func (c *conductor) foresee(ctx context.Context, task pipeline.Task, in Inputs) {
	if in.Key == "" || c.opt.NoCache || task.Build.NoCache {
		return
	}
	if state, _ := in.Predict(c.Store.Built, nil); state != Cached {
		return
	}
	if known, ok := c.Store.Build(in.Key); ok {
		c.expect(ctx, task, known.Image, false)
	}
}

// inputs reads what an image is made from; the zero value when it cannot be told.
func (c *conductor) inputs(ctx context.Context, task pipeline.Task) Inputs {
	known := map[string]store.Base{}
	for _, n := range task.Needs {
		if need := c.plan.Tasks[n]; need.Kind == pipeline.BuildTask {
			b := c.tasks[n].built
			known[need.ID] = store.Base{Digest: b.Image.Descriptor.Digest, Config: b.Config}
		}
	}
	in, err := c.Inputs(ctx, task, known)
	if err != nil {
		c.Log.Debug().Err(err).Str("task", task.ID).Msg("inputs unknown")
		return Inputs{}
	}
	return in
}

// recordBuild records what an image was made from, unless it is on record or
// the files changed while it was built: then nobody knows which of them it saw.
func (c *conductor) recordBuild(ctx context.Context, task pipeline.Task, was Inputs, built Built) {
	if was.Key == "" || c.opt.Forget {
		return
	}
	if state, _ := was.Predict(c.Store.Built, nil); state == Cached && !built.Cached && !c.opt.NoCache {
		c.forget(task) // the builder has collected layers by itself
	}
	last, _ := c.Store.Input(c.opt.Dir, task.ID)
	known, ok := c.Store.Build(was.Key)
	if ok && known.Image.Descriptor.Digest == built.Image.Descriptor.Digest && bytes.Equal(last.Steps, was.Raw) {
		return
	}
	if c.inputs(ctx, task).Key != was.Key {
		return
	}
	b := store.Build{Image: built.Image, Platforms: built.Platforms, Config: built.Config, Run: c.opt.ID}
	err := c.Store.PutBuild(was.Key, b, was.Steps)
	if err == nil {
		err = c.Store.PutInput(c.opt.Dir, task.ID, store.Input{Steps: was.Raw, Run: c.opt.ID})
	}
	if err != nil { // only the next dry run is the poorer for it
		c.Log.Warn().Str("error", c.Mask.Text(err.Error())).Str("task", task.ID).Msg("build not recorded")
	}
}

// forget drops the records of what is cached: what they say is not so.
func (c *conductor) forget(task pipeline.Task) {
	if err := c.Store.Pruned(); err != nil {
		c.Log.Warn().Str("error", c.Mask.Text(err.Error())).Str("task", task.ID).Msg("records of the build cache not dropped")
	}
}
