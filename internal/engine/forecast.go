package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"slipway/internal/store"
	"slipway/pipeline"
)

// Forecast is what a run would do, as far as that can be known without doing
// it. Its JSON is what `run pipeline --dry-run --json` prints.
type Forecast struct {
	Commit       string                `json:"commit,omitempty"`
	Plan         string                `json:"plan"`
	Images       []ImageForecast       `json:"images"`
	Services     []ServiceForecast     `json:"services,omitempty"`
	Environments []EnvironmentForecast `json:"environments,omitempty"`
}

// The words of a forecast. Unknown is honest: it stands where only the build
// itself can tell.
const (
	WillBuild = "build"
	Cached    = "cached"
	WillRun   = "run"
	Reused    = "reused"
	Unknown   = "unknown"
	WillSkip  = "skipped"
)

// ImageForecast tells what would become of one image.
type ImageForecast struct {
	Task      string            `json:"task"`
	Name      string            `json:"name"`
	Matrix    map[string]string `json:"matrix,omitempty"`
	State     string            `json:"state"` // build, cached, unknown, skipped
	Reason    string            `json:"reason,omitempty"`
	Digest    string            `json:"digest,omitempty"` // where the inputs are known to give it
	Platforms []string          `json:"platforms,omitempty"`
	Needs     []string          `json:"needs,omitempty"`
	Tests     []TestForecast    `json:"tests"`
}

// TestForecast tells what would become of one test.
type TestForecast struct {
	Task       string   `json:"task"`
	Name       string   `json:"name"`
	State      string   `json:"state"` // run, reused, unknown, skipped
	Reason     string   `json:"reason,omitempty"`
	ReusedFrom string   `json:"reused_from,omitempty"`
	Command    []string `json:"command,omitempty"`
	Network    string   `json:"network"`
	Services   []string `json:"services,omitempty"`
	Needs      []string `json:"needs,omitempty"`
}

// ServiceForecast tells which image a service would be made of.
type ServiceForecast struct {
	Name   string `json:"name"` // with the matrix values that its definition uses
	Image  string `json:"image"`
	Digest string `json:"digest,omitempty"` // where it is known without asking a registry
}

// EnvironmentForecast tells what promoting this run's images would ask and change.
type EnvironmentForecast struct {
	File  string   `json:"file"`
	Name  string   `json:"name"`
	From  []string `json:"from,omitempty"`
	Gates []string `json:"gates,omitempty"`
	Diff  string   `json:"diff,omitempty"`
	Error string   `json:"error,omitempty"`
}

// forecaster walks a plan in its order, so what a task needs is already foretold.
type forecaster struct {
	*Engine
	plan   pipeline.Plan
	opt    Options
	images []ImageForecast
	of     map[string]int         // owner → index in images
	builds map[string]store.Build // owner → what its inputs are known to give
}

// Forecast foretells a run of plan. It reads the records and the work tree and
// writes nothing: Engine's Store may be read-only and its Build and Test nil.
func (e *Engine) Forecast(ctx context.Context, plan pipeline.Plan, opt Options) (Forecast, error) {
	f := forecaster{Engine: e, plan: plan, opt: opt, of: map[string]int{}, builds: map[string]store.Build{}}
	for _, task := range plan.Tasks {
		if err := ctx.Err(); err != nil {
			return Forecast{}, context.Cause(ctx)
		}
		if task.Kind == pipeline.BuildTask {
			f.build(ctx, task)
			continue
		}
		if err := f.test(ctx, task); err != nil {
			return Forecast{}, err
		}
	}
	out := Forecast{Plan: plan.Digest.String(), Images: f.images}
	out.Services = f.services()
	return out, nil
}

func (f *forecaster) services() []ServiceForecast {
	var all []ServiceForecast
	for _, key := range slices.Sorted(maps.Keys(f.plan.Services)) {
		s := f.plan.Services[key]
		d := ""
		if id, ours := ofPipeline(s); !ours {
			d = f.Known(s.Image).String()
		} else if i := slices.IndexFunc(f.images, func(im ImageForecast) bool { return im.Task == id }); i >= 0 {
			d = f.images[i].Digest
		}
		all = append(all, ServiceForecast{Name: key, Image: s.Image, Digest: d})
	}
	return all
}

func (f *forecaster) build(ctx context.Context, task pipeline.Task) {
	im := ImageForecast{Task: task.ID, Name: task.Image, Matrix: task.Matrix, Platforms: task.Build.Platforms, Needs: f.needs(task), Tests: []TestForecast{}}
	var b store.Build
	im.State, im.Reason, b = f.foretell(ctx, task)
	im.Digest = b.Image.Descriptor.Digest.String()
	f.of[owner(task)] = len(f.images)
	f.builds[owner(task)] = b
	f.images = append(f.images, im)
}

// foretell gives the state of an image, the reason, and its digest where known.
func (f *forecaster) foretell(ctx context.Context, task pipeline.Task) (state, reason string, b store.Build) {
	if task.Skip != "" {
		return WillSkip, task.Skip, store.Build{}
	}
	bases := map[string]store.Base{}
	for _, n := range task.Needs {
		need := f.plan.Tasks[n]
		if need.Kind != pipeline.BuildTask {
			continue
		}
		base := f.images[f.of[owner(need)]]
		switch {
		case base.State == WillSkip:
			return WillSkip, "needs " + need.ID + ", which is skipped", store.Build{}
		case base.State == WillBuild && standsOn(task, need):
			return WillBuild, "stands on " + need.ID + ", which is built anew", store.Build{}
		case f.builds[owner(need)].Run == "" && standsOn(task, need):
			return Unknown, fmt.Sprintf("stands on %s (%s)", need.ID, base.State), store.Build{}
		}
		known := f.builds[owner(need)]
		bases[need.ID] = store.Base{Digest: known.Image.Descriptor.Digest, Config: known.Config}
	}
	in, err := f.Inputs(ctx, task, bases)
	switch {
	case err != nil:
		return Unknown, err.Error(), store.Build{}
	case f.opt.NoCache || task.Build.NoCache:
		return WillBuild, "every layer is rebuilt (no cache)", store.Build{}
	}
	last, known := f.Store.Input(f.opt.Dir, task.ID)
	state, reason = in.Predict(f.Store.Built, last.Steps)
	if state == WillBuild && !known {
		reason = "not built on this root yet"
	}
	if state != Cached {
		return state, reason, store.Build{}
	}
	b, ok := f.Store.Build(in.Key)
	if !ok {
		return Cached, "layers are cached, the image's configuration is new", store.Build{}
	}
	return Cached, "nothing changed since run " + b.Run, b
}

// standsOn reports whether a build takes another image of the pipeline as context.
func standsOn(task, need pipeline.Task) bool {
	for _, from := range task.Build.AdditionalContexts {
		if from == "image:"+need.ID {
			return true
		}
	}
	return false
}

func (f *forecaster) test(ctx context.Context, task pipeline.Task) error {
	t := task.Test
	out := TestForecast{Task: task.ID, Name: t.Name, Command: t.Command, Network: string(t.Network), Services: t.Services, Needs: f.needs(task)}
	if out.Network == "" {
		out.Network = string(pipeline.NetworkServices)
	}
	im := &f.images[f.of[owner(task)]]
	digests, unready := f.standsBeside(task)
	fetched, unknown := f.servicesKnown(task)
	key, _, why, err := f.reuseKey(ctx, f.plan, task, digests, fetched)
	if err != nil {
		return err
	}
	switch {
	case task.Skip != "":
		out.State, out.Reason = WillSkip, task.Skip
	case im.State == WillSkip:
		out.State, out.Reason = WillSkip, "its image is skipped"
	case f.opt.RerunTests || f.opt.NoCache:
		out.State, out.Reason = WillRun, "every test is run"
	case why != "":
		out.State, out.Reason = WillRun, why
	case im.State == Unknown:
		out.State, out.Reason = Unknown, "its image is unknown"
	case im.Digest == "":
		out.State, out.Reason = WillRun, "its image is new"
	case unready != nil:
		out.State, out.Reason = WillRun, "the image "+unready.Task+" that it uses is new"
		if unready.State == Unknown {
			out.State, out.Reason = Unknown, "the image "+unready.Task+" that it uses is unknown"
		}
	case unknown != "":
		out.State, out.Reason = Unknown, "only a registry can tell what the image of the service "+unknown+" is now"
	default:
		past, ok := f.Store.Test(key)
		out.State, out.Reason = WillRun, "not passed yet with this image, definition and fixtures"
		if ok {
			out.State, out.Reason, out.ReusedFrom = Reused, "passed in run "+past.Run, past.Run
		}
	}
	im.Tests = append(im.Tests, out)
	return nil
}

// standsBeside gives the digests of the images that a test needs, by task ID,
// and one whose digest is not known, besides its own.
func (f *forecaster) standsBeside(task pipeline.Task) (digests map[string]digest.Digest, unready *ImageForecast) {
	digests = map[string]digest.Digest{}
	for _, n := range task.Needs {
		need := f.plan.Tasks[n]
		if need.Kind != pipeline.BuildTask {
			continue
		}
		im := &f.images[f.of[owner(need)]]
		digests[need.ID] = digest.Digest(im.Digest)
		if im.Digest == "" && owner(need) != owner(task) {
			unready = im
		}
	}
	return digests, unready
}

// needs names what a task waits for, a test's own image left out.
func (f *forecaster) needs(task pipeline.Task) []string {
	var ids []string
	for _, n := range task.Needs {
		if need := f.plan.Tasks[n]; need.Kind != pipeline.BuildTask || owner(need) != owner(task) {
			ids = append(ids, need.ID)
		}
	}
	return ids
}
