package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"slipway/internal/attest"
	"slipway/internal/engine"
	"slipway/internal/git"
	"slipway/pipeline"
)

// eventFlags describe the event a local run stands for.
type eventFlags struct {
	kind, ref, base string
}

// event says what the work tree of dir is, and what it is to be run as. Without
// --event nothing in `when` holds a local run back. The tree is nil outside git.
func (f eventFlags) event(ctx context.Context, dir string) (ev pipeline.Event, _ *git.Tree, err error) {
	ev = pipeline.Event{Kind: pipeline.EventKind(f.kind), Repo: dir, Ref: f.ref, Trusted: true}
	switch ev.Kind {
	case "", pipeline.Push, pipeline.PullRequest, pipeline.Tag, pipeline.Schedule:
	default:
		return ev, nil, usagef("--event %s: use push, pull_request, tag or schedule", f.kind)
	}
	tree, err := git.Open(dir)
	if errors.Is(err, git.ErrNone) {
		if f.base != "" {
			return ev, nil, usagef("--base %s: %s is not in a git work tree", f.base, dir)
		}
		return ev, nil, nil
	}
	if err != nil {
		return ev, nil, err
	}
	ev.Commit = tree.Commit
	if ev.Ref == "" {
		ev.Ref = tree.Ref
	}
	if ev.Kind == pipeline.PullRequest {
		ev.Base = strings.TrimPrefix(f.base, "refs/heads/")
	}
	if f.base != "" {
		if ev.Changed, err = tree.Changed(ctx, f.base); err != nil {
			return ev, nil, usageError{err}
		}
		if ev.Kind == "" {
			return ev, nil, usagef("--base needs --event: without an event nothing is skipped")
		}
	}
	return ev, tree, nil
}

// worktree is looked at from the beginning of a run: whether it is clean may
// take longer to find out than the run.
type worktree struct {
	file  string    // the pipeline's, absolute
	tree  *git.Tree // nil outside git
	found chan error
	n     int // files that differed from the commit when the run began
}

func watch(ctx context.Context, file string, tree *git.Tree) *worktree {
	w := &worktree{file: file, tree: tree, found: make(chan error, 1)}
	go func() {
		var err error
		if tree != nil {
			w.n, err = tree.Uncommitted(ctx)
		}
		w.found <- err
	}()
	return w
}

// event completes ev. It is asked once, when the run has ended.
func (w *worktree) event(ev pipeline.Event) (pipeline.Event, error) {
	err := <-w.found
	ev.Dirty = w.n > 0
	return ev, err
}

// source names the commit that a run has built and tested, and gives its
// pipeline file. It looks at the tree again: what was clean at the beginning and
// is so at the end is taken to have been clean between.
func (w *worktree) source(ctx context.Context, ev pipeline.Event) (s attest.Source, file []byte, err error) {
	switch {
	case w.tree == nil:
		return s, nil, errors.New("there is no git commit to name; commit what was tested")
	case !ev.Trusted:
		return s, nil, errors.New("it is a fork's")
	}
	n := w.n
	if n == 0 {
		if n, err = w.again(ctx); err != nil {
			return s, nil, err
		}
	}
	if n > 0 {
		return s, nil, fmt.Errorf("%s from commit %.12s; commit first", plural(n, "file differs", "files differ"), ev.Commit)
	}
	if s.Pipeline, err = w.tree.Rel(w.file); err != nil {
		return s, nil, err
	}
	if file, err = w.tree.File(s.Pipeline); err != nil {
		return s, nil, err
	}
	s.Commit, s.Event, s.Ref, s.Base = ev.Commit, ev.Kind, ev.Ref, ev.Base
	if s.Repository, err = w.tree.Origin(); s.Repository == "" {
		s.Repository = "file://" + w.tree.Root
	}
	return s, file, err
}

// foreign finds the files that git ignores and that went into the run.
func (w *worktree) foreign(ctx context.Context, s attest.Source, o engine.Observed) error {
	return ignored{tree: w.tree, dir: path.Dir(s.Pipeline), seen: map[string][]string{}}.check(ctx, o)
}

// again counts the files that differ at the end, from the same commit.
func (w *worktree) again(ctx context.Context) (int, error) {
	now, err := git.Open(w.tree.Root)
	if err != nil {
		return 0, err
	}
	if now.Commit != w.tree.Commit {
		return 0, fmt.Errorf("commit %.12s was checked out while %.12s was tested", now.Commit, w.tree.Commit)
	}
	return now.Uncommitted(ctx)
}
