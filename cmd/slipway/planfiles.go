package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"slipway/internal/engine"
	"slipway/pipeline"
)

// volumesOf are the mounts of a test and of the services beside it.
func volumesOf(plan pipeline.Plan, t pipeline.Task) []pipeline.Volume {
	all := slices.Clone(t.Test.Volumes)
	services := plan.ServicesOf(t)
	for _, key := range slices.Sorted(maps.Keys(services)) {
		all = append(all, services[key].Volumes...)
	}
	return all
}

// checkMounts makes sure that every directory that tests and services mount is
// there and lies inside the repository, symbolic links followed.
func checkMounts(dir string, plan pipeline.Plan) error {
	for _, task := range plan.Tasks {
		if task.Kind != pipeline.TestTask || task.Skip != "" {
			continue
		}
		for _, v := range volumesOf(plan, task) {
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

// serviceEnvironment is what env_file and environment say together.
func serviceEnvironment(dir string, s pipeline.Service) (map[string]string, error) {
	vars := map[string]string{}
	for _, name := range s.EnvFile {
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			return nil, fmt.Errorf("service %s: read its env_file: %w", s.Name, err)
		}
		more, err := pipeline.ParseEnvFile(name, data)
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", s.Name, err)
		}
		maps.Copy(vars, more)
	}
	maps.Copy(vars, s.Environment)
	return vars, nil
}

// checkEnvFiles makes sure that the files of variables that services name are
// there, lie inside the repository and can be read.
func checkEnvFiles(dir string, plan pipeline.Plan) error {
	for _, key := range slices.Sorted(maps.Keys(plan.Services)) {
		s := plan.Services[key]
		for _, name := range s.EnvFile {
			at, err := filepath.EvalSymlinks(filepath.Join(dir, filepath.FromSlash(name)))
			if err != nil {
				return usagef("service %s reads its environment from %s: %w; make it, or mend `env_file` in %s", s.Name, name, err, pipelineFile)
			}
			if rel, err := filepath.Rel(dir, at); err != nil || !filepath.IsLocal(rel) {
				return usagef("service %s reads its environment from %s, which leads out of %s to %s; keep it inside the repository", s.Name, name, dir, at)
			}
		}
		if _, err := serviceEnvironment(dir, s); err != nil {
			return usageError{err}
		}
	}
	return nil
}
