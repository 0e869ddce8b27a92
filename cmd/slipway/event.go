package main

import (
	"context"
	"errors"
	"strings"

	"slipway/internal/git"
	"slipway/pipeline"
)

// eventFlags describe the event a local run stands for.
type eventFlags struct {
	kind, ref, base string
}

// event says what the work tree is, and what it is to be run as. Without
// --event nothing in `when` holds a local run back. The dirty func tells later
// whether the tree differs from its commit: it may take a while to find out.
func (f eventFlags) event(ctx context.Context, dir string) (ev pipeline.Event, dirty func() (bool, error), err error) {
	ev = pipeline.Event{Kind: pipeline.EventKind(f.kind), Repo: dir, Ref: f.ref, Trusted: true}
	switch ev.Kind {
	case "", pipeline.Push, pipeline.PullRequest, pipeline.Tag:
	default:
		return ev, nil, usagef("--event %s: use push, pull_request or tag", f.kind)
	}
	clean := func() (bool, error) { return false, nil }
	tree, err := git.Open(dir)
	if errors.Is(err, git.ErrNone) {
		if f.base != "" {
			return ev, nil, usagef("--base %s: %s is not in a git work tree", f.base, dir)
		}
		return ev, clean, nil
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
	return ev, func() (bool, error) { return tree.Dirty(ctx) }, nil
}
