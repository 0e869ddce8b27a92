package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"slipway/internal/engine"
	"slipway/pipeline"
)

// TestDryRunTellsTheTruth edits a pipeline at random and compares each dry run
// with the run that follows it: what was built and what was cached by BuildKit's
// own word, which tests ran and which were reused.
func TestDryRunTellsTheTruth(t *testing.T) {
	p := newPlace(t)
	e := edits{place: p, t: t, version: map[string]int{}}
	e.writeAll()
	right, wrong, unknown := 0, 0, 0
	tally := func(what, said, did string) {
		switch said {
		case engine.Unknown:
			unknown++
		case did:
			right++
		default:
			wrong++
			t.Errorf("%s: %s was foretold %s and was %s", e.last, what, said, did)
		}
	}
	for range soak(12, 200) {
		e.edit()
		var cast engine.Forecast
		if err := json.Unmarshal(p.must(t, "run", "pipeline", p.dir, "--dry-run", "--json"), &cast); err != nil {
			t.Fatal(err)
		}
		run := p.run(t)
		if run.State != pipeline.Passed {
			t.Fatalf("%s: the run %s: %s", e.last, run.State, run.Reason)
		}
		for i, im := range cast.Images {
			did := map[string]string{"built": engine.WillBuild, "cached": engine.Cached}[run.Images[i].State]
			tally(im.Task, im.State, did)
			if im.Digest != "" && im.Digest != run.Images[i].Digest {
				t.Errorf("%s: %s was foretold as %s and is %s", e.last, im.Task, im.Digest, run.Images[i].Digest)
			}
			for j, x := range im.Tests {
				did := engine.WillRun
				if run.Images[i].Tests[j].ReusedFrom != "" {
					did = engine.Reused
				}
				tally(x.Task, x.State, did)
			}
		}
	}
	t.Logf("predictions: %d right, %d wrong, %d unknown", right, wrong, unknown)
	if unknown > right {
		t.Error("more is unknown than known: that is no forecast")
	}
}

// edits changes one thing at a time, sometimes back.
type edits struct {
	place
	t       *testing.T
	version map[string]int
	last    string
}

// edit picks a thing and gives it another of three versions, so that old ones come back.
func (e *edits) edit() {
	things := []string{"source", "unused", "ignored", "dockerfile", "label", "argument", "base", "fixture", "command", "nothing"}
	thing := things[rand.IntN(len(things))]
	if thing != "nothing" {
		e.version[thing] = (e.version[thing] + 1 + rand.IntN(2)) % 3
	}
	e.last = fmt.Sprint("after a change of ", thing)
	e.writeAll()
}

func (e *edits) writeAll() {
	v := func(thing string) string { return fmt.Sprint(thing, " version ", e.version[thing]) }
	e.write(e.t, ".ci.yml", fmt.Sprintf(`version: 1
images:
  base: {build: base}
  app:
    build: {context: app, args: {VERSION: %q}, additional_contexts: {base: "image:base"}}
    tests:
      unit: {command: "echo %s", volumes: ["./fixtures:/data:ro"]}
      always: {command: "true", cache: false}
`, v("argument"), v("command")))
	e.write(e.t, "base/Dockerfile", fmt.Sprintf("FROM example.com/base:1\nRUN echo %s > /base\n", v("base")))
	e.write(e.t, "app/Dockerfile", fmt.Sprintf("FROM base\nLABEL v=%q\nARG VERSION\nCOPY src /src\nRUN cat /src/* > /all # %s\nRUN echo $VERSION > /version\n", v("label"), v("dockerfile")))
	e.write(e.t, "app/.dockerignore", "src/ignored\n")
	e.write(e.t, "app/src/source", v("source"))
	e.write(e.t, "app/src/ignored", v("ignored"))
	e.write(e.t, "app/unused", v("unused"))
	e.write(e.t, "fixtures/rows", v("fixture"))
}
