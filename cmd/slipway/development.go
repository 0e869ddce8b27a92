//go:build linux && !client

package main

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"slipway/pipeline"
)

// development is the environment file whose configuration a development set has.
type development struct {
	pipeline.Environment
	dir string // of its file
}

// developmentEnvironment reads the named environment file of a pipeline; without
// a name, dev where there is one, and else an empty one.
func developmentEnvironment(dir string, plan pipeline.Plan, name string) (development, error) {
	var have []string
	for _, file := range plan.Environments {
		path := filepath.Join(dir, filepath.FromSlash(file))
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && name == "" {
			continue
		}
		if err != nil {
			return development{}, usagef("read an environment file: %w", err)
		}
		env, err := pipeline.ParseEnvironment(path, data)
		if err != nil {
			return development{}, err
		}
		if env.Name == name || name == "" && env.Name == "dev" {
			return development{*env, filepath.Dir(path)}, nil
		}
		have = append(have, env.Name)
	}
	if name != "" {
		return development{}, usagef("--env %s: the pipeline's environments are %s; add its file under `environments` in %s", name, strings.Join(have, ", "), pipelineFile)
	}
	return development{}, nil
}

// set puts --set over the file's environment.
func (d *development) set(pairs []string) error {
	over := maps.Clone(d.Environment.Environment)
	if over == nil {
		over = map[string]string{}
	}
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return usagef("--set %s: write NAME=VALUE", pair)
		}
		over[name] = value
	}
	d.Environment.Environment = over
	return nil
}

// developmentSetOf is what of a plan runs: images that nothing else stands on or
// is filled from, and the services beside their tests.
type setOf struct {
	images   []pipeline.Task
	services []string // keys of the plan's services, those they depend on included
}

func developmentOf(plan pipeline.Plan, env development) setOf {
	var set setOf
	used := func(task pipeline.Task) bool {
		ref := "image:" + task.ID
		for _, other := range plan.Tasks {
			if other.Build != nil && slices.Contains(slices.Collect(maps.Values(other.Build.AdditionalContexts)), ref) {
				return true
			}
		}
		for _, s := range plan.Services {
			if s.Image == ref {
				return true
			}
		}
		for _, v := range plan.Volumes {
			if strings.HasPrefix(v.From, ref+":") {
				return true
			}
		}
		return false
	}
	services := map[string]bool{}
	for _, task := range plan.Tasks {
		if task.Kind != pipeline.BuildTask || task.Skip != "" {
			continue
		}
		if chosen, ok := env.Images[task.Image]; len(env.Images) > 0 && (!ok || !fitsMatrix(task.Matrix, chosen.Matrix)) || len(env.Images) == 0 && used(task) {
			continue
		}
		set.images = append(set.images, task)
		for _, test := range plan.Tasks {
			if test.Kind == pipeline.TestTask && test.Image == task.Image && maps.Equal(test.Matrix, task.Matrix) {
				for key := range plan.ServicesOf(test) {
					services[key] = true
				}
			}
		}
	}
	set.services = slices.Sorted(maps.Keys(services))
	return set
}

func fitsMatrix(matrix, chosen map[string]string) bool {
	for k, v := range chosen {
		if matrix[k] != v {
			return false
		}
	}
	return true
}
