//go:build linux && !client

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"slipway/internal/engine"
	"slipway/internal/git"
	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/internal/store"
	"slipway/internal/upload"
	"slipway/pipeline"
)

// serving is an opened root that serves.
type serving struct {
	*globals
	flags  serveFlags
	stack  *stack
	ledger *ledger.Ledger
	bound  keepBound
	left   map[string]bool // directories of runs that kept tests have mounted; under stack.keeping
	tracer trace.Tracer    // nil: nobody is sent traces
	end    context.CancelCauseFunc
}

// workDir is where commits are written out for their runs. What is in it when a
// server starts is of runs that were cut off.
func (v *serving) workDir() string { return filepath.Join(v.root, "work") }

func (v *serving) mirror(repo ledger.Repo) *git.Mirror {
	return git.NewMirror(filepath.Join(v.root, "mirrors", repo.ID), git.Limits{})
}

// run carries out one attempt as `slipway run pipeline` would in a fresh clone.
func (v *serving) run(ctx context.Context, repo ledger.Repo, run ledger.Run, log *server.Log) (end ledger.End, err error) {
	dir := filepath.Join(v.workDir(), run.Record)
	defer func() { err = errors.Join(err, v.clear(dir)) }()
	c, err := v.filesOf(ctx, repo, run, dir, log)
	if err != nil {
		return endWithout(err)
	}
	defer func() { end.Title, _, _ = strings.Cut(c.commit.Message, "\n") }()
	if c.skip != "" {
		return ledger.End{State: ledger.Skipped, Reason: c.skip}, nil
	}
	secrets, err := v.vault().For(repo.Name, string(run.Kind), !run.Trusted && repo.ID != ledger.Uploads)
	if err != nil {
		return end, err
	}
	plan, err := planOf(c, secrets, run.Asked.Only)
	if err == nil {
		err = v.flags.mayReach(plan, run.Trusted)
	}
	if err != nil { // the user's: nothing was run
		return ledger.End{State: ledger.Failed, Reason: err.Error()}, nil
	}
	if why := skipsAll(plan); why != "" {
		return ledger.End{State: ledger.Skipped, Reason: why, Plan: plan.Digest.String()}, nil
	}
	past, err := v.past(run, plan)
	if err != nil {
		return ledger.End{State: ledger.Failed, Reason: err.Error(), Plan: plan.Digest.String()}, nil
	}
	record, err := v.carry(ctx, v.stack, v.jobOf(repo, run, c, plan, past, secrets, log))
	if err != nil || record.State != pipeline.Passed {
		err = errors.Join(err, v.broken())
	}
	if err != nil {
		return end, err
	}
	v.sayKept(run, record, log)
	return v.endOf(run, c, record)
}

// broken is why the volumes cannot be used by this process any more. The server ends
// then, to be started again, unless the disk is still full.
func (v *serving) broken() error {
	err := v.stack.volumes.Broken()
	if err == nil {
		return nil
	}
	if short, _ := v.short(); !short { // what cannot be known is no reason to go on
		err = fmt.Errorf("%w; the server ends, and its next start opens it anew", err)
		v.end(err)
	}
	return err
}

// filesOf writes the files of a run out.
func (v *serving) filesOf(ctx context.Context, repo ledger.Repo, run ledger.Run, dir string, log *server.Log) (checkout, error) {
	if run.Asked.Upload != "" {
		return v.unpack(ctx, run, dir)
	}
	log.Say("", fmt.Sprintf("fetching %s of %s", run.Commit, repo.URL))
	return fetchCommit(ctx, v.mirror(repo), v.remoteOf(repo, v.flags.policy(), v.flags.knownHosts), run, dir)
}

// endWithout is the end of a run whose files are not to be had.
func endWithout(err error) (ledger.End, error) {
	var unfit *git.Unfit
	var gone *git.NotThere
	var wrong *upload.Damaged
	switch {
	case errors.As(err, &unfit), errors.As(err, &wrong):
		return ledger.End{State: ledger.Failed, Reason: err.Error()}, nil
	case errors.As(err, &gone), errors.Is(err, upload.ErrNone):
		return ledger.End{State: ledger.Canceled, Reason: err.Error()}, nil
	}
	return ledger.End{}, err
}

// Whose tests may reach the internet.
const (
	internetAll     = "all"
	internetTrusted = "trusted"
	internetNone    = "none"
)

// mayReach refuses tests that ask for more of the network than the server gives.
func (f serveFlags) mayReach(plan pipeline.Plan, trusted bool) error {
	if f.internet == internetAll || f.internet == internetTrusted && trusted {
		return nil
	}
	for _, task := range plan.Tasks {
		if task.Test != nil && task.Test.Network == pipeline.NetworkInternet && task.Skip == "" {
			return fmt.Errorf("%s asks for `network: internet`, which this server gives to %s tests (`slipway serve --internet`); use `services`, and bring what it needs into the image", task.ID,
				map[string]string{internetTrusted: "trusted pushes'", internetNone: "no"}[f.internet])
		}
	}
	return nil
}

// planOf reads and checks the pipeline of a commit. The secrets are those that
// this run may have.
func planOf(c checkout, secrets map[string][]byte, only []string) (plan pipeline.Plan, err error) {
	data, err := readWithin(c.dir, pipelineFile)
	if err != nil {
		return plan, fmt.Errorf("there is no %s that can be read: %w; `slipway init` writes a first one", pipelineFile, err)
	}
	p, err := pipeline.Parse(pipelineFile, data)
	if err != nil {
		return plan, err
	}
	if plan, err = p.Expand(c.event, only...); err != nil {
		return plan, err
	}
	if err := errors.Join(checkMounts(c.dir, plan), checkEnvFiles(c.dir, plan)); err != nil {
		return plan, err
	}
	for _, task := range plan.Tasks {
		for _, name := range secretsOf(task) {
			if _, ok := secrets[name]; !ok && task.Skip == "" {
				return plan, fmt.Errorf("%s names the secret %s, which this run may not have; `slipway secrets set %s` says for which events it is (a fork gets none)", task.ID, name, name)
			}
		}
	}
	return plan, nil
}

// past is what a rerun takes over from the attempt before.
func (v *serving) past(run ledger.Run, plan pipeline.Plan) (p engine.Past, err error) {
	again := run.Asked.Again
	if again == (ledger.Again{}) {
		return p, nil
	}
	before, err := v.stack.store.Run(again.Record)
	switch {
	case err != nil:
		return p, fmt.Errorf("the attempt before left no record (any more): %w; rerun it as a whole", err)
	case before.Plan != plan.Digest.String():
		return p, fmt.Errorf("the attempt before was of plan %.19s, and its pipeline gives %.19s now; rerun it as a whole", before.Plan, plan.Digest)
	}
	p.Run = before.ID
	if again.SamePlan {
		p.Images, p.Services = engine.Used(before, plan)
	}
	if again.FromFailed {
		p.Tests = engine.Passed(before, plan)
	}
	return p, nil
}

// skipsAll says why nothing of a plan is to be run; empty: something is.
func skipsAll(plan pipeline.Plan) (why string) {
	for _, task := range plan.Tasks {
		if task.Skip == "" {
			return ""
		}
		why = task.Skip
	}
	return why
}

func (v *serving) jobOf(repo ledger.Repo, run ledger.Run, c checkout, plan pipeline.Plan, past engine.Past, secrets map[string][]byte, log *server.Log) job {
	j := job{
		Options: engine.Options{
			ID: run.Record, Dir: repo.URL, RerunTests: run.Asked.RerunTests || run.Asked.Again.SamePlan, NoCache: run.Asked.NoCache, Past: past, KeepFailed: v.flags.keep.failed.on,
			Event: func() (pipeline.Event, error) { return c.event, nil },
		},
		dir: c.dir, plan: plan, origin: c, secrets: secrets, machine: v.stack.machine, ahead: v.stack.ahead, keepFor: v.flags.keep.failed.stay(time.Hour), bound: v.bound, progress: log.Progress,
	}
	if stay := time.Duration(run.Asked.KeepSeconds) * time.Second; stay > 0 {
		j.KeepFailed, j.keepFor = true, stay
	}
	switch {
	case run.Trusted:
		j.signer = v.flags.signer(v.keyring())
	case run.Asked.Upload != "":
		j.Forget, j.caches, j.signer = true, "upload "+run.Author, unsigned
	default:
		j.Forget, j.caches = true, "fork-"+run.ID
	}
	return j
}

// endOf is what the ledger keeps of a record.
func (v *serving) endOf(run ledger.Run, c checkout, record store.Run) (ledger.End, error) {
	data, err := json.Marshal(record)
	if err != nil {
		return ledger.End{}, err
	}
	end := ledger.End{State: ledger.State(record.State), Reason: record.Reason, Plan: record.Plan, Result: data}
	end.Promote = record.State == pipeline.Passed && run.Trusted && run.Kind == pipeline.Push
	if record.State == pipeline.Passed {
		end.Says = summaryOf(record)
	}
	return end, nil
}

// summaryOf is one line for a forge: "2 images, 5 tests (3 reused)".
func summaryOf(r store.Run) string {
	images, skipped, tests, reused := 0, 0, 0, 0
	for _, im := range r.Images {
		if pipeline.State(im.State) == pipeline.Skipped {
			skipped++
			continue
		}
		images++
		for _, t := range im.Tests {
			if t.State == pipeline.Skipped {
				continue
			}
			tests++
			if t.ReusedFrom != "" {
				reused++
			}
		}
	}
	parts := []string{plural(images, "image", "images"), plural(tests, "test", "tests")}
	if reused > 0 {
		parts[1] += fmt.Sprintf(" (%d reused)", reused)
	}
	if skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped", skipped))
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}
