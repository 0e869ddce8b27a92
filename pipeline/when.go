package pipeline

import (
	"fmt"
	"slices"
	"strings"
)

// When says which events a pipeline, an image or a test runs for. The zero value is
// every event. Where Push, PullRequest or Schedule is given, the kinds that are not do not run.
type When struct {
	Push        *PushFilter        `json:"push,omitzero"`
	PullRequest *PullRequestFilter `json:"pull_request,omitzero"`
	Schedule    *ScheduleFilter    `json:"schedule,omitzero"`
	Paths       []string           `json:"paths,omitzero"` // globs; one changed path must match
}

// PushFilter selects pushes. Where only Branches is given no tag runs, and the
// other way round; with neither, all do.
type PushFilter struct {
	Branches []string `json:"branches,omitzero"` // globs
	Tags     []string `json:"tags,omitzero"`     // globs
}

// PullRequestFilter selects pull requests by the branch they go to.
type PullRequestFilter struct {
	Branches []string `json:"branches,omitzero"` // globs over the target
	Forks    Forks    `json:"forks,omitzero"`
}

// ScheduleFilter selects what runs by the clock.
type ScheduleFilter struct {
	Names []string `json:"names,omitzero"` // globs
}

// Forks says what becomes of a pull request from a fork.
type Forks string

// The answers to a fork; the zero value means ForksHold.
const (
	ForksHold  Forks = "hold"  // waits until a person allows the commit
	ForksAllow Forks = "allow" // runs at once, without secrets
	ForksDeny  Forks = "deny"  // never runs
)

// skip says why ev does not run, or "". An event without a kind is a person's
// at a shell: nothing holds it back. What an event does not know (its branch,
// its changed paths) does not hold it back either.
func (w When) skip(ev Event) string {
	if ev.Kind == "" {
		return ""
	}
	if w.Push != nil || w.PullRequest != nil || w.Schedule != nil {
		if reason := w.kindSkip(ev); reason != "" {
			return "when: " + reason
		}
	}
	return pathSkip(w.Paths, ev)
}

func (w When) kindSkip(ev Event) string {
	tag, branch := ev.tag(), ev.branch()
	switch {
	case ev.Kind == PullRequest:
		if w.PullRequest == nil {
			return "pull requests are not named"
		}
		if !ev.Trusted && w.PullRequest.Forks == ForksDeny {
			return "pull requests from forks are denied"
		}
		return nameSkip("the target branch", branch, w.PullRequest.Branches)
	case ev.Kind == Schedule:
		if w.Schedule == nil {
			return "schedules are not named"
		}
		return nameSkip("the schedule", ev.Name, w.Schedule.Names)
	case w.Push == nil:
		return "pushes are not named"
	case ev.Kind == Tag || tag != "":
		if len(w.Push.Tags) == 0 && len(w.Push.Branches) > 0 {
			return "tags are not named"
		}
		return nameSkip("the tag", tag, w.Push.Tags)
	default:
		if len(w.Push.Branches) == 0 && len(w.Push.Tags) > 0 {
			return "branches are not named"
		}
		return nameSkip("the branch", branch, w.Push.Branches)
	}
}

func nameSkip(what, name string, patterns globs) string {
	if name == "" || len(patterns) == 0 || patterns.matcher()(name) {
		return ""
	}
	return fmt.Sprintf("%s %s is not among %s", what, name, strings.Join(patterns, ", "))
}

func pathSkip(patterns globs, ev Event) string {
	if len(patterns) == 0 || ev.Changed == nil || ev.Kind == "" {
		return ""
	}
	if slices.ContainsFunc(ev.Changed, patterns.matcher()) {
		return ""
	}
	return "paths: nothing under " + strings.Join(patterns, ", ") + " changed"
}
