//go:build linux && !client

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"slipway/internal/store"
	"slipway/pipeline"
	"slipway/runner"
)

func (g *globals) runnerDir() string { return filepath.Join(g.root, "runner") }

// kept finds what is kept of RUN or RUN/TEST, or says why there is nothing.
func (g *globals) kept(ctx context.Context, arg string) ([]runner.Frozen, error) {
	all, err := runner.ListFrozen(ctx, g.runnerDir())
	if err != nil {
		return nil, err
	}
	name, task, one := strings.Cut(arg, "/")
	run, err := store.ReadOnly(g.root).Run(name)
	id := run.ID
	if err != nil {
		if id = onlyRun(all, name); id == "" { // a run may be forgotten before what is kept of it
			return nil, usageError{err}
		}
	}
	var found []runner.Frozen
	for _, f := range all {
		if f.Name == keptName(id, task) || !one && strings.HasPrefix(f.Name, id+"/") {
			found = append(found, f)
		}
	}
	if len(found) == 0 {
		return nil, usageError{whyNotKept(run, task)}
	}
	return found, nil
}

// onlyRun is the one run of which something is kept and that name begins or ends.
func onlyRun(all []runner.Frozen, name string) (id string) {
	for _, f := range all {
		run, _, _ := strings.Cut(f.Name, "/")
		if name == "" || !strings.HasPrefix(run, name) && !strings.HasSuffix(run, name) || run == id {
			continue
		}
		if id != "" {
			return ""
		}
		id = run
	}
	return id
}

func whyNotKept(run store.Run, task string) error {
	if task == "" {
		return fmt.Errorf("nothing is kept of run %s; `slipway run pipeline --keep-failed` keeps failed tests, `slipway shell` lists them", run.ID)
	}
	tests := testsOf(run)
	t, ok := tests[task]
	switch {
	case !ok:
		return noTest(run, task)
	case t.State == pipeline.Passed:
		return fmt.Errorf("%s passed in run %s; only failed tests are kept", task, run.ID)
	case t.KeptUntil != nil:
		return fmt.Errorf("%s of run %s was kept until %s and is gone; `slipway rerun --keep-failed %s/%s` runs it again and keeps it (--keep-for: longer)",
			task, run.ID, t.KeptUntil.Local().Format(time.DateTime), run.ID, task)
	}
	return fmt.Errorf("%s of run %s was not kept; `slipway rerun --keep-failed %s/%s` runs it again and keeps it", task, run.ID, run.ID, task)
}
