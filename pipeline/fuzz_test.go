package pipeline_test

import (
	"bytes"
	"errors"
	"testing"
	"unicode/utf8"

	"slipway/pipeline"
)

// inside checks that err is Errors whose places lie in text.
func inside(t *testing.T, text []byte, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var problems pipeline.Errors
	if !errors.As(err, &problems) || len(problems) == 0 {
		t.Fatalf("not Errors: %v", err)
	}
	lines := bytes.Split(text, []byte("\n"))
	for _, p := range problems {
		if p.Line < 1 || p.Line > len(lines) || p.Column < 1 || p.Message == "" || !utf8.ValidString(p.Message) {
			t.Fatalf("%q is not a place in the %d lines of\n%q", p, len(lines), text)
		}
		if width := utf8.RuneCount(lines[p.Line-1]); p.Column > width+1 {
			t.Fatalf("%q is behind the end of the line %q", p, lines[p.Line-1])
		}
	}
}

func seedCorpus(f *testing.F, glob string) {
	f.Helper()
	for _, file := range files(f, glob) {
		f.Add(file.text)
	}
}

// FuzzParse: no file makes Parse or Expand panic or hang, what is wrong is said
// at a place in the file, and the same file and event make the same plan.
func FuzzParse(f *testing.F) {
	seedCorpus(f, "testdata/valid/*.yml")
	for _, w := range wrongFiles {
		f.Add([]byte(w.text()))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := pipeline.Parse("f", text)
		inside(t, text, err)
		if err != nil {
			return
		}
		for _, ev := range []pipeline.Event{{}, changed(pushMain, "a/b"), fork} {
			plan, err := p.Expand(ev)
			inside(t, text, err)
			if err != nil {
				continue
			}
			checkPlan(t, plan)
			again, err := p.Expand(ev)
			if err != nil || again.Digest != plan.Digest {
				t.Fatalf("expanded twice: %s and %s (%v)", plan.Digest, again.Digest, err)
			}
		}
	})
}

// checkPlan checks what every plan promises.
func checkPlan(t *testing.T, plan pipeline.Plan) {
	t.Helper()
	ids := map[string]bool{}
	for i, task := range plan.Tasks {
		if ids[task.ID] {
			t.Fatalf("%s is there twice", task.ID)
		}
		ids[task.ID] = true
		for _, need := range task.Needs {
			if need < 0 || need >= i {
				t.Fatalf("%s needs task %d, which is not before it", task.ID, need)
			}
			if task.Skip == "" && plan.Tasks[need].Skip != "" {
				t.Fatalf("%s runs and needs %s, which does not", task.ID, plan.Tasks[need].ID)
			}
		}
		if (task.Kind == pipeline.BuildTask) != (task.Build != nil) || (task.Kind == pipeline.TestTask) != (task.Test != nil) {
			t.Fatalf("%s is neither build nor test", task.ID)
		}
		if task.Test == nil {
			continue
		}
		for _, key := range task.Test.Services {
			if _, there := plan.Services[key]; !there {
				t.Fatalf("%s needs the service %s, which the plan does not have", task.ID, key)
			}
		}
	}
}

func FuzzParseEnvironment(f *testing.F) {
	seedCorpus(f, "testdata/environment/*.yml")
	for _, w := range wrongEnvironments {
		f.Add([]byte(w.file))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		_, err := pipeline.ParseEnvironment("f", text)
		inside(t, text, err)
	})
}

// FuzzExpand: an event from outside, whatever its words are, makes a plan or an error at a place.
func FuzzExpand(f *testing.F) {
	text := []byte(`version: 1
when: {push: {branches: ["**"], tags: ["v*"]}, pull_request: {branches: [main]}}
images:
  app:
    paths: ["src/", "!src/[a-c]*"]
    matrix: {a: [1, 2]}
    build: {context: "./${{ event.branch }}", target: "${{event.tag}}", platforms: ["${{ event.kind }}/${{ event.commit }}"], additional_contexts: {x: "${{ event.ref }}"}}
    services: ["${{ event.branch }}"]
    tests:
      t: {command: "${{ event.commit }}", retry: "${{ event.tag }}", volumes: ["${{ event.ref }}"], environment: {A: "${{ event.branch }}"}, user: "${{ event.kind }}"}
services: {db: {image: "x:${{ event.tag }}"}}
volumes: {data: }
`)
	p, err := pipeline.Parse("f", text)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("push", "refs/heads/main", "", "abc", "src/a", true)
	f.Add("tag", "refs/tags/3", "", "abc", "src/d", true)
	f.Add("pull_request", "./x:/y", "db", "0", "", false)
	f.Fuzz(func(t *testing.T, kind, ref, base, commit, path string, trusted bool) {
		plan, err := p.Expand(pipeline.Event{Kind: pipeline.EventKind(kind), Ref: ref, Base: base, Commit: commit, Trusted: trusted, Changed: []string{path}})
		inside(t, text, err)
		if err == nil {
			checkPlan(t, plan)
		}
	})
}
