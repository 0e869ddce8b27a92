package pipeline_test

import (
	"strings"
	"testing"

	"slipway/pipeline"
)

func TestWhen(t *testing.T) {
	push := func(ref string, paths ...string) pipeline.Event {
		ev := pipeline.Event{Kind: pipeline.Push, Ref: ref, Trusted: true}
		if paths != nil {
			ev.Changed = paths
		}
		return ev
	}
	tag := func(name string) pipeline.Event {
		return pipeline.Event{Kind: pipeline.Tag, Ref: "refs/tags/" + name, Trusted: true}
	}
	pull := func(base string, trusted bool) pipeline.Event {
		return pipeline.Event{Kind: pipeline.PullRequest, Ref: "refs/pull/1/head", Base: base, Trusted: trusted}
	}
	clock := func(name string) pipeline.Event {
		return pipeline.Event{Kind: pipeline.Schedule, Ref: "refs/heads/main", Name: name, Trusted: true}
	}
	for _, c := range []struct {
		name, when string
		event      pipeline.Event
		want       string
	}{
		{"none", "{}", push("refs/heads/x"), ""},
		{"none, pull request", "{}", pull("main", false), ""},
		{"person at a shell", "{push: {branches: [main]}, paths: [a]}", pipeline.Event{Ref: "refs/heads/x", Changed: []string{"b"}}, ""},
		{"branch", "{push: {branches: [main]}}", push("refs/heads/main"), ""},
		{"other branch", "{push: {branches: [main, rel/*]}}", push("refs/heads/x"), "when: the branch x is not among main, rel/*"},
		{"star stops at a slash", "{push: {branches: [\"rel/*\"]}}", push("refs/heads/rel/1/2"), "when: the branch rel/1/2 is not among rel/*"},
		{"two stars do not", "{push: {branches: [\"rel/**\"]}}", push("refs/heads/rel/1/2"), ""},
		{"taken away", "{push: {branches: [\"**\", \"!wip/**\"]}}", push("refs/heads/wip/a"), "when: the branch wip/a is not among **, !wip/**"},
		{"let in again", "{push: {branches: [\"**\", \"!wip/**\", wip/good]}}", push("refs/heads/wip/good"), ""},
		{"branch not known", "{push: {branches: [main]}}", push(""), ""},
		{"pushes, all", "{push: }", push("refs/heads/x"), ""},
		{"tag with branches only", "{push: {branches: [main]}}", tag("v1"), "when: tags are not named"},
		{"branch with tags only", "{push: {tags: [v*]}}", push("refs/heads/main"), "when: branches are not named"},
		{"tag", "{push: {tags: [\"v[0-9]*\"]}}", tag("v1.2"), ""},
		{"other tag", "{push: {tags: [\"v[0-9]*\"]}}", tag("vx"), "when: the tag vx is not among v[0-9]*"},
		{"tag by ref", "{push: {tags: [v1]}}", push("refs/tags/v1"), ""},
		{"tag of all pushes", "{push: {}}", tag("v1"), ""},
		{"pushes only", "{push: {}}", pull("main", true), "when: pull requests are not named"},
		{"pull requests only", "{pull_request: {}}", push("refs/heads/main"), "when: pushes are not named"},
		{"target", "{pull_request: {branches: [main]}}", pull("main", true), ""},
		{"other target", "{pull_request: {branches: [main]}}", pull("next", true), "when: the target branch next is not among main"},
		{"fork held", "{pull_request: {}}", pull("main", false), ""},
		{"fork denied", "{pull_request: {forks: deny}}", pull("main", false), "when: pull requests from forks are denied"},
		{"own pull request, forks denied", "{pull_request: {forks: deny}}", pull("main", true), ""},
		{"schedule", "{schedule: {names: [night*]}}", clock("nightly"), ""},
		{"other schedule", "{schedule: {names: [night*]}}", clock("weekly"), "when: the schedule weekly is not among night*"},
		{"schedule of a proof, whose name it does not say", "{schedule: {names: [night*]}}", clock(""), ""},
		{"schedules, all", "{schedule: }", clock("weekly"), ""},
		{"schedules only", "{schedule: {}}", push("refs/heads/main"), "when: pushes are not named"},
		{"pushes only, schedule", "{push: {}}", clock("nightly"), "when: schedules are not named"},
		{"none, schedule", "{}", clock("nightly"), ""},
		{"schedule and paths", "{paths: [api/**]}", clock("nightly"), ""},
		{"path", "{paths: [api/**]}", push("refs/heads/x", "README.md", "api/a/b.go"), ""},
		{"no path", "{paths: [api/**]}", push("refs/heads/x", "README.md", "apix/a"), "paths: nothing under api/** changed"},
		{"nothing changed", "{paths: [\"**\"]}", push("refs/heads/x", []string{}...), "paths: nothing under ** changed"},
		{"directory", "{paths: docs/}", push("refs/heads/x", "docs/a/b"), ""},
		{"any depth", "{paths: [\"**/*.go\"]}", push("refs/heads/x", "a.go"), ""},
		{"any depth, deep", "{paths: [\"**/*.go\"]}", push("refs/heads/x", "a/b/c.go"), ""},
		{"one sign", "{paths: [\"a?c\"]}", push("refs/heads/x", "a/c"), "paths: nothing under a?c changed"},
		{"not in the set", "{paths: [\"[!a]b\"]}", push("refs/heads/x", "ab"), "paths: nothing under [!a]b changed"},
		{"a plain name", "{paths: [\"a.c\", \"x\\\\*y\"]}", push("refs/heads/x", "abc", "xzy"), `paths: nothing under a.c, x\*y changed`},
		{"a plain star", "{paths: [\"x\\\\*y\"]}", push("refs/heads/x", "x*y"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, text := range []string{
				"version: 1\nwhen: " + c.when + "\nimages: {a: {build: ., tests: {t: {command: x}}}}\n",
				"version: 1\nimages: {a: {build: ., when: " + c.when + ", tests: {t: {command: x}}}}\n",
				"version: 1\nimages: {a: {build: ., tests: {t: {when: " + c.when + ", command: x}}}}\n",
			} {
				p, err := pipeline.Parse("f", []byte(text))
				if err != nil {
					t.Fatal(err)
				}
				plan, err := p.Expand(c.event)
				if err != nil {
					t.Fatal(err)
				}
				for _, task := range plan.Tasks {
					if task.Kind == pipeline.BuildTask && strings.Contains(text, "t: {when:") {
						if task.Skip != "" {
							t.Errorf("a test's when skips the build: %q", task.Skip)
						}
						continue
					}
					if task.Skip != c.want {
						t.Errorf("%s: %q, want %q, of\n%s", task.ID, task.Skip, c.want, text)
					}
				}
			}
		})
	}
}

// A build that another image needs runs although nothing of it changed; its tests do not.
func TestSkippedImageThatIsNeeded(t *testing.T) {
	p, err := pipeline.Parse("f", []byte(`version: 1
images:
  base: {build: base, paths: [base/], tests: {t: {command: x}}}
  api: {build: {context: api, additional_contexts: {base: "image:base"}}, paths: [api/], tests: {t: {command: x}}}
  web: {build: web, paths: [web/]}
`))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := p.Expand(changed(pushMain, "api/main.go"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"base": "", "base/t": "paths: nothing under base/ changed", "api": "", "api/t": "", "web": "paths: nothing under web/ changed"}
	for _, task := range plan.Tasks {
		if task.Skip != want[task.ID] {
			t.Errorf("%s: %q, want %q", task.ID, task.Skip, want[task.ID])
		}
	}
	if len(plan.Tasks) != len(want) {
		t.Errorf("%d tasks, want %d", len(plan.Tasks), len(want))
	}
}

// A test for nights alone is skipped by a push, with what needs it.
func TestTestsOfASchedule(t *testing.T) {
	p, err := pipeline.Parse("f", []byte(`version: 1
images:
  web:
    build: .
    tests:
      unit: {command: x}
      load: {command: x, when: {schedule: {names: [nightly]}}}
      report: {command: x, needs: [load]}
`))
	if err != nil {
		t.Fatal(err)
	}
	nightly := pipeline.Event{Kind: pipeline.Schedule, Name: "nightly", Ref: "refs/heads/main", Trusted: true}
	digests := map[string]string{}
	for _, c := range []struct {
		event pipeline.Event
		want  map[string]string
	}{
		{pushMain, map[string]string{"web/load": "when: pushes are not named", "web/report": "needs web/load, which is skipped"}},
		{nightly, nil},
		{pipeline.Event{}, nil},
	} {
		plan, err := p.Expand(c.event)
		if err != nil {
			t.Fatal(err)
		}
		if len(plan.Tasks) != 4 {
			t.Fatalf("%d tasks", len(plan.Tasks))
		}
		for _, task := range plan.Tasks {
			if task.Skip != c.want[task.ID] {
				t.Errorf("%s by %q: %q, want %q", task.ID, c.event.Kind, task.Skip, c.want[task.ID])
			}
			// What a test proves is the same, whichever event ran it.
			d := plan.Definition(task).String()
			if was, ok := digests[task.ID]; ok && was != d {
				t.Errorf("%s has another definition by %q", task.ID, c.event.Kind)
			}
			digests[task.ID] = d
		}
	}
}
