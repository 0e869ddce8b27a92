package main

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"slipway/internal/engine"
	"slipway/internal/git"
	"slipway/pipeline"
)

// ignored looks for files that went into a run although they are no part of the
// commit: git calls a tree clean whatever lies in it under an ignore rule.
type ignored struct {
	tree *git.Tree
	dir  string // of the pipeline file, relative to the tree
	seen map[string][]string
}

// in gives the ignored files of a directory, both relative to the pipeline's.
func (g ignored) in(ctx context.Context, dir string) ([]string, error) {
	at := path.Join(g.dir, filepath.ToSlash(dir))
	if files, ok := g.seen[at]; ok {
		return files, nil
	}
	files, err := g.tree.Ignored(ctx, at)
	g.seen[at] = files
	return files, err
}

// went gives the ignored files that builds of a run took or its tests could see.
func (g ignored) went(ctx context.Context, o engine.Observed) ([]string, error) {
	var all []string
	for _, b := range o.Builds {
		files, err := g.built(ctx, b)
		if err != nil {
			return nil, err
		}
		all = append(all, files...)
		for _, t := range b.Tests {
			for _, source := range shown(o.Plan, t.Task) {
				files, err := g.in(ctx, source)
				if err != nil {
					return nil, err
				}
				all = append(all, files...)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// shown are the directories and files of the repository that a test and the
// services beside it can see.
func shown(plan pipeline.Plan, t pipeline.Task) []string {
	var all []string
	for _, v := range volumesOf(plan, t) {
		source := v.Source
		if !engine.Bind(v) {
			source = plan.Volumes[source].From
		}
		if source == "." || strings.HasPrefix(source, "./") { // else an empty volume, or one of an image
			all = append(all, source)
		}
	}
	for _, s := range plan.ServicesOf(t) {
		all = append(all, s.EnvFile...)
	}
	return all
}

// built gives those that a build took. Of a build whose steps could not be
// foretold, nobody knows: then it is all there are in its directories.
func (g ignored) built(ctx context.Context, b engine.ObservedBuild) ([]string, error) {
	build := *b.Task.Build
	taken := map[string]bool{}
	for _, f := range append(buildFiles(build), b.Inputs.Files...) {
		taken[f] = true
	}
	var all []string
	for _, context := range contextsOf(build) {
		files, err := g.in(ctx, context)
		if err != nil {
			return nil, err
		}
		top := path.Join(g.dir, context)
		for _, f := range files {
			rel := f
			if top != "." {
				rel = strings.TrimPrefix(f, top+"/")
			}
			if b.Inputs.Key == "" || taken[rel] {
				all = append(all, f)
			}
		}
	}
	return all, nil
}

// buildFiles are what a build reads of its context besides what its steps take.
func buildFiles(b pipeline.Build) []string {
	name := b.Dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	name = path.Clean(name)
	return []string{name, name + ".dockerignore", ".dockerignore"}
}

// contextsOf are the directories that a build reads.
func contextsOf(b pipeline.Build) []string {
	all := []string{path.Clean(b.Context)}
	for _, where := range b.AdditionalContexts {
		if !strings.HasPrefix(where, "image:") && !strings.Contains(where, "://") {
			all = append(all, path.Clean(where))
		}
	}
	return all
}

// check refuses a run that took what the commit does not have.
func (g ignored) check(ctx context.Context, o engine.Observed) error {
	files, err := g.went(ctx, o)
	if err != nil || len(files) == 0 {
		return err
	}
	what := strings.Join(files[:min(3, len(files))], ", ")
	if len(files) > 3 {
		what += ", …"
	}
	return fmt.Errorf("%s went into it that git ignores (%s); commit them, or keep them out with .dockerignore", plural(len(files), "file", "files"), what)
}
