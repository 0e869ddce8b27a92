package engine

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/store"
	"slipway/pipeline"
)

// Observed is what a run saw happen, for whoever may sign it.
type Observed struct {
	Run    string
	Event  pipeline.Event
	Plan   pipeline.Plan
	Builds []ObservedBuild // those that gave an image
}

// ObservedBuild is an image and what its tests came to.
type ObservedBuild struct {
	Task              pipeline.Task
	Built             Built
	Inputs            Inputs // as read beside the build; without a Key where they could not be
	Started, Finished time.Time
	Past              bool           // an earlier attempt's: what it was built from is signed already
	Tests             []ObservedTest // those that passed or failed
}

// ObservedTest is a test that was decided.
type ObservedTest struct {
	Task     pipeline.Task
	Result   store.Test
	Finished time.Time     // of a reused result: in the run that ran it
	Fixtures digest.Digest // that it depended on; empty where its result is never reused
}

// Proof is what was signed of a run.
type Proof struct {
	Attestations map[string]digest.Digest // by task
	Unsigned     string                   // why something was not signed; empty: all was
}

// prove has what the run observed signed, and notes in the outcomes what was. It
// gives the reason where it was not.
func (c *conductor) prove(ctx context.Context, ev pipeline.Event) string {
	if c.Prove == nil || ctx.Err() != nil {
		return ""
	}
	o := c.observed(ev)
	if len(o.Builds) == 0 {
		return ""
	}
	proof := c.Prove(ctx, o)
	for i, task := range c.plan.Tasks {
		if out := &c.tasks[i]; !out.past {
			out.attestation = proof.Attestations[task.ID]
		}
	}
	return proof.Unsigned
}

func (c *conductor) observed(ev pipeline.Event) Observed {
	o := Observed{Run: c.opt.ID, Event: ev, Plan: c.plan}
	of := map[string]int{}
	for i, task := range c.plan.Tasks {
		out := &c.tasks[i]
		if task.Kind == pipeline.BuildTask {
			if out.state == pipeline.Passed {
				of[owner(task)] = len(o.Builds)
				o.Builds = append(o.Builds, ObservedBuild{Task: task, Built: out.built, Inputs: out.inputs, Started: out.ended.Add(-out.took), Finished: out.ended, Past: out.past})
			}
			continue
		}
		at, built := of[owner(task)]
		if !built || out.test == nil || out.past || (out.state != pipeline.Passed && out.state != pipeline.Failed) {
			continue
		}
		b := &o.Builds[at]
		b.Tests = append(b.Tests, ObservedTest{Task: task, Result: *out.test, Finished: out.ended, Fixtures: out.fixtures})
	}
	return o
}
