package pipeline_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"slipway/pipeline"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares got with the file, or rewrites it with -update.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(got) {
		t.Errorf("%s differs (go test ./pipeline -update rewrites it); got:\n%s", file, got)
	}
}

func parseFile(t testing.TB, name string) *pipeline.Pipeline {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.Parse(name, text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var (
	pushMain = pipeline.Event{Kind: pipeline.Push, Ref: "refs/heads/main", Commit: "c0ffee", Trusted: true}
	fork     = pipeline.Event{Kind: pipeline.PullRequest, Ref: "refs/pull/7/head", Base: "main", Commit: "c0ffee"}
)

func changed(ev pipeline.Event, paths ...string) pipeline.Event {
	ev.Changed = append([]string{}, paths...)
	return ev
}

func TestPlans(t *testing.T) {
	for _, c := range []struct {
		golden, file string
		event        pipeline.Event
		only         []string
	}{
		{"full", "full", pipeline.Event{}, nil},
		{"full-paths", "full", changed(pushMain, "README.md"), nil},
		{"full-branch", "full", pipeline.Event{Kind: pipeline.Push, Ref: "refs/heads/wip"}, nil},
		{"full-only-test", "full", pushMain, []string{"api[python=3.12]/unit"}},
		{"full-only-image", "full", pushMain, []string{"base"}},
		{"minimal", "minimal", pushMain, nil},
		{"anchors", "anchors", pushMain, nil},
		{"matrix", "matrix", pushMain, nil},
		{"matrix-only", "matrix", pushMain, []string{"app[debian=12]", "front/lint"}},
		{"services", "services", fork, nil},
	} {
		t.Run(c.golden, func(t *testing.T) {
			plan, err := parseFile(t, "testdata/valid/"+c.file+".yml").Expand(c.event, c.only...)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.MarshalIndent(plan, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata/plan", c.golden+".json"), append(text, '\n'))
		})
	}
}

// One parsed pipeline serves several events at once.
func TestExpandAtOnce(t *testing.T) {
	p := parseFile(t, "testdata/valid/services.yml")
	want, err := p.Expand(pushMain)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			plan, err := p.Expand(pushMain)
			if err != nil || plan.Digest != want.Digest {
				t.Errorf("got %s, want %s (%v)", plan.Digest, want.Digest, err)
			}
			for i := range plan.Tasks {
				for k := range plan.Tasks[i].Matrix {
					plan.Tasks[i].Matrix[k] = "the reader's own"
				}
			}
		})
	}
	group.Wait()
}
