package pipeline_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

func expand(t testing.TB, text string, ev pipeline.Event, only ...string) pipeline.Plan {
	t.Helper()
	p, err := pipeline.Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := p.Expand(ev, only...)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

const digestBase = `version: 1
images:
  app:
    build: {context: ., args: {A: "1", B: "2"}}
    tests:
      t: {command: x, services: [db], volumes: ["v:/v"], environment: {A: "1", B: "2"}}
      u: {command: y}
services:
  db: {image: redis, depends_on: [other]}
  other: {image: redis, volumes: ["w:/w"]}
volumes: {v: {from: ./v}, w: {from: ./w}}
`

func definitions(plan pipeline.Plan) map[string]digest.Digest {
	out := map[string]digest.Digest{}
	for _, task := range plan.Tasks {
		out[task.ID] = plan.Definition(task)
	}
	return out
}

// What does not change the meaning changes no digest; what does changes the
// plan's and exactly the definitions of the tasks it is about.
func TestDigests(t *testing.T) {
	plan := expand(t, digestBase, pipeline.Event{})
	if err := plan.Digest.Validate(); err != nil {
		t.Fatal(err)
	}
	base := definitions(plan)
	for _, c := range []struct {
		name, old, new string
		changes        string // IDs; "" is none, and then the plan's digest stays too
	}{
		{"order of a map", `{A: "1", B: "2"}}`, `{B: "2", A: "1"}}`, ""},
		{"list form", `args: {A: "1", B: "2"}`, `args: [B=2, A=1]`, ""},
		{"comments and x-", "version: 1\n", "x-a: 1\nversion: 1 # c\n", ""},
		{"a default, written", "command: y", "command: y, timeout: 30m, network: services, retry: 0, resources: {}", ""},
		{"empty lists", "command: y", "command: y, environment: {}, volumes: [], secrets: []", ""},
		{"command", "command: y", "command: z", "app/u"},
		{"variable", `environment: {A: "1"`, `environment: {A: "3"`, "app/t"},
		{"an empty variable", `environment: {A: "1"`, `environment: {C: "", A: "1"`, "app/t"},
		{"build", "args: {A: \"1\"", "args: {A: \"3\"", "app"},
		{"service", "db: {image: redis", "db: {image: redis:8", "app/t"},
		{"service of a service", "other: {image: redis", "other: {image: redis:8", "app/t"},
		{"an emptied command", "other: {image: redis", "other: {image: redis, command: []", "app/t"},
		{"volume", "v: {from: ./v}", "v: {from: ./z}", "app/t"},
		{"volume of a service of a service", "w: {from: ./w}", "w: {from: ./z}", "app/t"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(digestBase, c.old, c.new, 1)
			if text == digestBase {
				t.Fatal("nothing replaced")
			}
			got := expand(t, text, pipeline.Event{})
			var changed []string
			for _, task := range got.Tasks {
				if got.Definition(task) != base[task.ID] {
					changed = append(changed, task.ID)
				}
			}
			if strings.Join(changed, " ") != c.changes {
				t.Errorf("changed definitions: %q, want %q", changed, c.changes)
			}
			if (got.Digest != plan.Digest) != (c.changes != "") {
				t.Errorf("the plan's digest changed: %v", got.Digest != plan.Digest)
			}
		})
	}
}

// The digest says nothing of the machine: not where the file lies, nor the clone.
func TestDigestIsOfThePlanAlone(t *testing.T) {
	a, err := pipeline.Parse("/home/ann/.ci.yml", []byte(digestBase))
	if err != nil {
		t.Fatal(err)
	}
	b, err := pipeline.Parse(".ci.yml", []byte(digestBase))
	if err != nil {
		t.Fatal(err)
	}
	planA, errA := a.Expand(pipeline.Event{Repo: "/home/ann/app"})
	planB, errB := b.Expand(pipeline.Event{Repo: "https://example.com/app.git", Dirty: true})
	if errA != nil || errB != nil || planA.Digest != planB.Digest {
		t.Errorf("%s and %s (%v, %v)", planA.Digest, planB.Digest, errA, errB)
	}
}

func TestOnlyUnknown(t *testing.T) {
	p, err := pipeline.Parse("f", []byte(digestBase))
	if err != nil {
		t.Fatal(err)
	}
	for only, want := range map[string]string{
		"ap":        `no image or test "ap" in the plan; did you mean "app"?`,
		"appp":      `no image or test "appp" in the plan; did you mean "app"?`,
		"app/tt":    `no image or test "app/tt" in the plan; did you mean "app/t"?`,
		"app[a=1]":  `no image or test "app[a=1]" in the plan; known: app, app/t, app/u`,
		"":          `no image or test "" in the plan; known: app, app/t, app/u`,
		"app[a=1]x": `no image or test "app[a=1]x" in the plan; known: app, app/t, app/u`,
	} {
		if _, err := p.Expand(pipeline.Event{}, only); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", only, err, want)
		}
	}
}

// manyTasks is a pipeline of 1,000 tasks: 20 images of 5 variants, 9 tests each.
func manyTasks() string {
	var out strings.Builder
	out.WriteString("version: 1\nservices: {db: {image: \"mysql:${{ matrix.v }}\"}}\nimages:\n")
	for i := range 20 {
		fmt.Fprintf(&out, "  i%d:\n    matrix: {v: [1, 2, 3, 4, 5]}\n    build: {context: i%d, args: {V: \"${{ matrix.v }}\", C: \"${{ event.commit }}\"}}\n", i, i)
		if i > 0 {
			fmt.Fprintf(&out, "    needs: [i%d]\n", i-1)
		}
		out.WriteString("    services: [db]\n    tests:\n")
		for j := range 9 {
			fmt.Fprintf(&out, "      t%d: {command: [run, \"${{ matrix.v }}\"], environment: {A: b}, timeout: 5m, resources: {cpus: 1, memory: 1g}}\n", j)
		}
	}
	return out.String()
}

func BenchmarkParse1000Tasks(b *testing.B) {
	text := []byte(manyTasks())
	for b.Loop() {
		if _, err := pipeline.Parse("f", text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExpand1000Tasks(b *testing.B) {
	p, err := pipeline.Parse("f", []byte(manyTasks()))
	if err != nil {
		b.Fatal(err)
	}
	ev := changed(pushMain, "a", "b")
	for b.Loop() {
		plan, err := p.Expand(ev)
		if err != nil || len(plan.Tasks) != 1000 {
			b.Fatalf("%d tasks, %v", len(plan.Tasks), err)
		}
	}
}
