//go:build linux && !client

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"slipway/builder"
	"slipway/builder/dockerfile"
	"slipway/internal/engine"
	"slipway/internal/store"
	"slipway/pipeline"
)

// inputs tells what images of the pipeline in dir are made from, with the
// records' word on what they stand on. It builds nothing and asks no network.
func inputs(dir string, records *store.Store) func(context.Context, pipeline.Task, map[string]store.Base) (engine.Inputs, error) {
	return func(ctx context.Context, task pipeline.Task, bases map[string]store.Base) (engine.Inputs, error) {
		var all platformSteps
		for _, platform := range platformsOf(task) {
			steps, final, err := dockerfile.Steps(ctx, dockerfile.Request{
				Dir: dir, Build: *task.Build, Platform: platform, Attrs: builder.Attrs(), Resolve: resolver(records, bases),
			})
			if err != nil {
				return engine.Inputs{}, err
			}
			all = append(all, stepsOf{Steps: steps, Final: final})
		}
		return all.inputs()
	}
}

// platformsOf lists the platforms a task builds; the machine's own is "".
func platformsOf(task pipeline.Task) []string {
	if len(task.Build.Platforms) == 0 {
		return []string{""}
	}
	return task.Build.Platforms
}

// resolver answers for images of the pipeline and for imported ones. Of others
// nothing is on record, and what stands on them cannot be foretold.
func resolver(records *store.Store, bases map[string]store.Base) func(context.Context, string, string) (dockerfile.Image, error) {
	return func(_ context.Context, name, _ string) (dockerfile.Image, error) {
		if id, ok := strings.CutPrefix(name, "image:"); ok {
			b := bases[id]
			return dockerfile.Image{Digest: b.Digest, Config: b.Config, Imported: true}, nil
		}
		b, ok := records.Base(name)
		if !ok {
			return dockerfile.Image{}, nil
		}
		return dockerfile.Image{Digest: b.Digest, Config: b.Config, Imported: true}, nil
	}
}

type stepsOf struct {
	Steps []dockerfile.Step `json:"steps"`
	Final dockerfile.Final  `json:"final"`
}

// platformSteps are the steps of one build, platform by platform.
type platformSteps []stepsOf

func (all platformSteps) inputs() (engine.Inputs, error) {
	in := engine.Inputs{Predict: all.predict}
	var finals []string
	for _, p := range all {
		for _, s := range p.Steps {
			in.Steps = append(in.Steps, s.Key)
			if s.Loose != "" {
				in.Steps = append(in.Steps, s.Loose)
			}
			for _, source := range s.Sources {
				in.Files = append(in.Files, source.Path)
			}
		}
		in.Steps = append(in.Steps, p.Final.Key)
		finals = append(finals, p.Final.Key.String())
	}
	in.Key = digest.FromString(strings.Join(finals, "\n"))
	var err error
	if in.Raw, err = json.Marshal(all); err != nil {
		return engine.Inputs{}, fmt.Errorf("record the steps of a build: %w", err)
	}
	return in, nil
}

// predict is the worst of the platforms' predictions.
func (all platformSteps) predict(built func(digest.Digest) bool, before json.RawMessage) (state, reason string) {
	var last platformSteps
	if json.Unmarshal(before, &last) != nil { // none, or of another version of slipway: only the reasons suffer
		last = nil
	}
	state = engine.Cached
	for i, p := range all {
		var was []dockerfile.Step
		if i < len(last) {
			was = last[i].Steps
		}
		said := dockerfile.Predict(p.Steps, p.Final, built, was)
		switch {
		case said.State == dockerfile.Unknown:
			state, reason = engine.Unknown, said.Reason
		case said.State == dockerfile.Rebuilt && anyNot(said.Steps, dockerfile.Cached): // else only the configuration is new
			return engine.WillBuild, said.Reason
		}
	}
	return state, reason
}

func anyNot(steps []dockerfile.Verdict, state dockerfile.State) bool {
	return slices.ContainsFunc(steps, func(v dockerfile.Verdict) bool { return v.State != state })
}
