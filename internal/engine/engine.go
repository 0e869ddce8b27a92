// Package engine is the conductor: it carries one Event through its Plan. It
// decides what waits for what, what may be reused, what is tried again and what
// the whole came to. It refuses to know how an image is built or a test is run:
// those are funcs that cmd fills in.
package engine

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/rs/zerolog"

	"slipway/internal/mask"
	"slipway/internal/schedule"
	"slipway/internal/store"
	"slipway/pipeline"
)

// Engine conducts runs. Every field but Prove, Mask, Ahead and Log must be set; a forecast
// needs Inputs, Fixtures, Known and Store alone.
type Engine struct {
	Build    func(context.Context, BuildRequest) (Built, error)
	Prepare  func(context.Context, TestRequest) (Sandbox, error)
	Inputs   func(ctx context.Context, task pipeline.Task, bases map[string]store.Base) (Inputs, error)
	Fixtures func(context.Context, pipeline.Plan, pipeline.Task) (digest.Digest, error) // of the files of the repository that a test and its services see
	Fetch    func(ctx context.Context, reference string) (Fetched, error)               // an image that is not of this pipeline
	Known    func(reference string) digest.Digest                                       // what Fetch would give, where that is known; asks no network
	Prove    func(context.Context, Observed) Proof                                      // signs; nil: nothing is signed
	Store    *store.Store
	Progress func(pipeline.Progress)
	Mask     *mask.Mask        // the run's secrets: they are hidden before anything is shown, logged or recorded
	Machine  *schedule.Machine // what the tasks share, with those of other runs
	Ahead    Ahead
	Log      zerolog.Logger
}

// BuildRequest asks for one image.
type BuildRequest struct {
	Task     pipeline.Task
	Bases    map[string]pipeline.Image // images of this pipeline by the ID that "image:ID" gives them
	As       digest.Digest             // an earlier attempt's image, which is not built again; empty: there is none
	NoCache  bool
	Progress func(pipeline.Progress)
}

// Built is what a build came to. A Dockerfile that fails is a value here; the
// error beside it means that slipway failed.
type Built struct {
	Image     pipeline.Image
	Platforms map[string]store.Platform // of a multi-platform image
	Config    json.RawMessage           // the image's configuration
	Bases     map[string]digest.Digest  // what the Dockerfile stands on, by reference
	Cached    bool                      // no step ran
	Failure   string                    // the user's failure, told in full; empty when built
}

// Fetched is an image of which a service is made, in the builder's store.
type Fetched struct {
	Image   pipeline.Image
	Failure string // the user's, such as a name that no registry knows; empty when it is there
}

// TestRequest asks for one attempt at one test.
type TestRequest struct {
	Run      string
	Task     pipeline.Task
	Image    pipeline.Image
	Images   map[string]pipeline.Image // those of this pipeline that its services and volumes come from, and its own, by task ID
	Services map[string]Service        // all that run beside it, by their key in the plan
	Attempt  int                       // from 1
	Out      string                    // host directory that receives what the test leaves in /out
	Logs     string                    // host directory for what its services say
	Memory   int64                     // bytes that it was given room for, its services included
}

// Service is one of a test, with the image that it is made of.
type Service struct {
	pipeline.Service
	From pipeline.Image
}

// Sandbox is prepared for one attempt at one test: made, its volumes in place,
// its services healthy. It may wait for its turn, or be closed without having
// had one. The ctx of its Prepare covers the preparing alone.
type Sandbox struct {
	// Run runs the command, once. What is the user's failure, a service that never
	// got healthy included, is a Result; an error means that slipway failed, and
	// the attempt may be made again in another sandbox. Start in the Result counts
	// from since.
	Run func(ctx context.Context, since time.Time, out io.Writer) (pipeline.Result, error)
	// Keep lets what a failed Run left stay beyond Close, and says until when. nil:
	// nothing could be kept.
	Keep func(ctx context.Context) (until time.Time, err error)
	// Close removes everything, whatever state it is in. It is called once.
	Close func()
	// Healthy is when the last service was ready; zero without services.
	Healthy time.Time
}

// Inputs identify what an image is made from, without making it.
type Inputs struct {
	Key   digest.Digest   // of the image: equal keys give equal digests
	Steps []digest.Digest // to be recorded as built once it is
	Raw   json.RawMessage // for a later Predict's before
	Files []string        // it takes from directories of the work tree, each relative to the directory it is of
	// Predict says what a build would come to: Cached, WillBuild or Unknown, and
	// why. built knows what was recorded; before is the last build's Raw.
	Predict func(built func(digest.Digest) bool, before json.RawMessage) (state, reason string)
}

// Options of one run.
type Options struct {
	ID         string // store.NewRunID
	Dir        string // of the pipeline file, absolute
	RerunTests bool
	NoCache    bool // and RerunTests
	KeepFailed bool // sandboxes of failed tests stay
	Forget     bool // nothing is recorded for other runs to rely on
	Past       Past
	// Event is asked when all tasks have ended: whether a tree is clean may take
	// longer to find out than the run.
	Event func() (pipeline.Event, error)
}

// own says how often slipway tries again after a failure of its own.
const own = 2

// Run carries an event through its plan and records what came of it. The user's failures
// are in the record; an error means the record itself could not be made. When
// ctx is cancelled the run stops, and what was done so far is recorded.
func (e *Engine) Run(ctx context.Context, plan pipeline.Plan, opt Options) (store.Run, error) {
	c := newConductor(e, plan, opt)
	started := time.Now()
	c.conduct(ctx)
	ev, err := opt.Event()
	if err != nil {
		return store.Run{}, err
	}
	run := store.Run{
		ID: opt.ID, Dir: opt.Dir, Commit: ev.Commit, Ref: ev.Ref, Dirty: ev.Dirty, Plan: plan.Digest.String(),
		Started: started.UTC(), Unsigned: c.prove(ctx, ev),
	}
	run.Images, run.Duration = c.images(), time.Since(started).Milliseconds()
	run.State, run.Reason = c.verdict(ctx)
	return run, e.Store.PutRun(run)
}
