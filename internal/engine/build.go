package engine

import (
	"context"
	"time"

	"slipway/internal/store"
	"slipway/pipeline"
)

// build makes one image. Its inputs are read beside the build, so that the next
// dry run can tell what changed; they are recorded only if they did not change
// meanwhile.
func (c *conductor) build(ctx context.Context, task pipeline.Task, out *outcome) {
	started := time.Now()
	before := make(chan Inputs, 1)
	go func() { before <- c.inputs(ctx, task) }()
	req := BuildRequest{Task: task, Bases: c.built(task), NoCache: c.opt.NoCache, Progress: c.Progress}
	var err error
	for attempt := range own + 1 {
		out.built, err = c.Build(ctx, req)
		if err == nil || ctx.Err() != nil {
			break
		}
		c.Log.Warn().Err(err).Str("task", task.ID).Int("attempt", attempt+1).Msg("build broke")
	}
	out.took = time.Since(started)
	was := <-before
	switch {
	case ctx.Err() != nil:
		out.end(pipeline.Canceled, context.Cause(ctx).Error())
	case err != nil:
		out.end(pipeline.Error, err.Error())
	case out.built.Failure != "":
		out.end(pipeline.Failed, out.built.Failure)
	default:
		out.end(pipeline.Passed, "")
		c.recordBuild(ctx, task, was, out.built)
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

func (c *conductor) recordBuild(ctx context.Context, task pipeline.Task, was Inputs, built Built) {
	if was.Key == "" || c.inputs(ctx, task).Key != was.Key {
		return
	}
	b := store.Build{Image: built.Image, Platforms: built.Platforms, Config: built.Config, Run: c.opt.ID}
	err := c.Store.PutBuild(was.Key, b, was.Steps)
	if err == nil {
		err = c.Store.PutInput(c.opt.Dir, task.ID, store.Input{Steps: was.Raw, Run: c.opt.ID})
	}
	if err != nil { // only the next dry run is the poorer for it
		c.Log.Warn().Err(err).Str("task", task.ID).Msg("build not recorded")
	}
}
