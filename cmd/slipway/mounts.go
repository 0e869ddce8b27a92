package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"slipway/internal/engine"
	"slipway/internal/volume"
	"slipway/pipeline"
	"slipway/runner"
)

// mountsVolumes reports whether a test of the plan mounts a named volume.
func mountsVolumes(plan pipeline.Plan) bool {
	for _, task := range plan.Tasks {
		if task.Kind != pipeline.TestTask || task.Skip != "" {
			continue
		}
		for _, v := range task.Test.Volumes {
			if !engine.Bind(v) {
				return true
			}
		}
	}
	return false
}

// mounts gives what a test mounts: directories of the repository as they are,
// and of each named volume a copy of its own. release removes the copies; the
// sandbox may still have them mounted.
func (w wiring) mounts(ctx context.Context, t pipeline.Test) (binds []runner.Bind, release func() error, err error) {
	var copies []*volume.Copy
	release = func() error {
		var errs []error
		for _, c := range copies {
			errs = append(errs, c.Release())
		}
		return errors.Join(errs...)
	}
	for _, v := range t.Volumes {
		b := runner.Bind{Source: filepath.Join(w.dir, filepath.FromSlash(v.Source)), Target: v.Target, ReadOnly: v.ReadOnly}
		if !engine.Bind(v) {
			c, err := w.copyOf(ctx, v.Source, volume.CopyOptions{Limit: t.Resources.Disk})
			if err != nil {
				return nil, nil, errors.Join(fmt.Errorf("volume %s of test %s: %w", v.Source, t.Name, err), release())
			}
			copies = append(copies, c)
			b.Source = c.Dir
		}
		binds = append(binds, b)
	}
	return binds, release, nil
}

// copyOf makes a copy of a named volume's seed, importing that when it changed.
func (w wiring) copyOf(ctx context.Context, name string, o volume.CopyOptions) (*volume.Copy, error) {
	from := w.seeds[name].From
	if from == "" {
		return w.volumes.Empty(ctx, o)
	}
	// Without a name in the store: two repositories may call different seeds the same.
	seed, err := w.volumes.Seed(ctx, "", volume.Directory(w.dir, filepath.FromSlash(from)))
	if err != nil {
		return nil, err
	}
	return w.volumes.Snapshot(ctx, seed.ID, o)
}

// checkMounts makes sure that every directory that tests mount is there and
// lies inside the repository, symbolic links followed.
func checkMounts(dir string, plan pipeline.Plan) error {
	for _, task := range plan.Tasks {
		if task.Kind != pipeline.TestTask || task.Skip != "" {
			continue
		}
		for _, v := range task.Test.Volumes {
			from := v.Source
			if !engine.Bind(v) {
				from = plan.Volumes[v.Source].From
			}
			if !strings.HasPrefix(from, "./") {
				continue
			}
			at, err := filepath.EvalSymlinks(filepath.Join(dir, filepath.FromSlash(from)))
			if err != nil {
				return usagef("test %s mounts %s: %w; make it, or mend `volumes` in %s", task.ID, from, err, pipelineFile)
			}
			if rel, err := filepath.Rel(dir, at); err != nil || !filepath.IsLocal(rel) {
				return usagef("test %s mounts %s, which leads out of %s to %s; only what is inside the repository can be mounted", task.ID, from, dir, at)
			}
		}
	}
	return nil
}
