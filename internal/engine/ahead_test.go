package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"

	"slipway/internal/engine"
	"slipway/internal/schedule"
	"slipway/internal/store"
	"slipway/pipeline"
)

// tests is a pipeline of one image with so many tests.
func tests(n int, more string) string {
	yaml := "version: 1\nimages:\n  web:\n    build: .\n    tests:\n"
	for i := range n {
		yaml += fmt.Sprintf("      t%d: {command: x%s}\n", i, more)
	}
	return yaml
}

func TestPreparedAhead(t *testing.T) {
	for name, c := range map[string]struct {
		ahead engine.Ahead
		yaml  string
		want  []string // prepared while the first test runs, on one core
	}{
		"nothing":            {engine.Ahead{}, tests(5, ""), []string{"web/t0"}},
		"two":                {engine.Ahead{Sandboxes: 2, Memory: 1 << 30}, tests(5, ""), []string{"web/t0", "web/t1", "web/t2"}},
		"as memory allows":   {engine.Ahead{Sandboxes: 4, Memory: 20 << 20}, tests(5, ""), []string{"web/t0", "web/t1", "web/t2"}},
		"no more than all":   {engine.Ahead{Sandboxes: 9, Memory: 1 << 30}, tests(2, ""), []string{"web/t0", "web/t1"}},
		"also what it needs": {engine.Ahead{Sandboxes: 1, Memory: 1 << 30}, two, []string{"web/it", "web/unit"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.Machine, b.Ahead = schedule.New(schedule.Share{CPUs: 1, Memory: 1 << 30}, 0), c.ahead
				var then []string
				b.during = func(engine.TestRequest) {
					if then == nil {
						synctest.Wait() // for all that can be done meanwhile
						b.mu.Lock()
						defer b.mu.Unlock()
						then = slices.Clone(b.made)
					}
				}
				b.run(t, c.yaml, engine.Options{})
				slices.Sort(then)
				if !slices.Equal(then, c.want) {
					t.Errorf("while the first test ran, %v were prepared; want %v", then, c.want)
				}
			})
		})
	}
}

func TestNothingIsPreparedForATestThatIsReused(t *testing.T) {
	b := newBench(t)
	b.Ahead = engine.Ahead{Sandboxes: 4, Memory: 1 << 30}
	b.run(t, tests(4, ""), engine.Options{})
	b.made = nil
	b.run(t, tests(4, ""), engine.Options{})
	if len(b.made) != 0 {
		t.Errorf("prepared %v", b.made)
	}
}

func TestWhatIsSkippedIsClosed(t *testing.T) {
	b := newBench(t)
	b.Machine = schedule.New(schedule.Share{CPUs: 1, Memory: 1 << 30}, 0)
	b.Ahead = engine.Ahead{Sandboxes: 1, Memory: 1 << 30}
	b.tests["web/unit"] = []any{failed, failed}
	run := b.run(t, two, engine.Options{}) // which looks for open ones
	if run.Images[1].Tests[1].State != pipeline.Skipped || slices.Contains(b.did, "test web/it") {
		t.Errorf("the test behind the failed one is %s: %v", run.Images[1].Tests[1].State, b.did)
	}
}

// What goes wrong ahead of a test's turn is not held against it.
func TestFailingAheadCostsNoAttempt(t *testing.T) {
	b := newBench(t)
	b.Ahead = engine.Ahead{Sandboxes: 4, Memory: 1 << 30}
	inner, first := b.Prepare, map[string]bool{}
	b.Prepare = func(ctx context.Context, r engine.TestRequest) (engine.Sandbox, error) {
		b.mu.Lock()
		again := first[r.Task.ID]
		first[r.Task.ID] = true
		b.mu.Unlock()
		if !again {
			return engine.Sandbox{}, errors.New("not yet")
		}
		return inner(ctx, r)
	}
	run := b.run(t, tests(3, ""), engine.Options{})
	for _, x := range run.Images[0].Tests {
		if x.State != pipeline.Passed || x.Attempts != 1 {
			t.Errorf("%s %s after %d attempts", x.Name, x.State, x.Attempts)
		}
	}
}

func TestCancelClosesWhatIsPrepared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Machine = schedule.New(schedule.Share{CPUs: 1, Memory: 1 << 30}, 0)
		b.Ahead = engine.Ahead{Sandboxes: 3, Memory: 1 << 30}
		inner := b.Prepare
		b.Prepare = func(ctx context.Context, r engine.TestRequest) (engine.Sandbox, error) {
			if r.Task.ID == "web/t3" { // its services take for ever
				<-ctx.Done()
				return engine.Sandbox{}, context.Cause(ctx)
			}
			return inner(ctx, r)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		b.during = func(engine.TestRequest) {
			synctest.Wait()
			cancel(errors.New("the user said stop"))
		}
		run, err := b.Engine.Run(ctx, plan(t, tests(6, "")), engine.Options{ID: "r", Dir: "/src", Event: func() (pipeline.Event, error) { return pipeline.Event{}, nil }})
		if err != nil || run.State != pipeline.Canceled || len(b.made) < 3 {
			t.Errorf("%s, %v; prepared %v", run.State, err, b.made)
		}
		b.allClosed(t)
	})
}

// An image that is on record for these inputs is tested in a sandbox that was
// made while it was built; another image never is.
func TestForeseenImages(t *testing.T) {
	var late chan struct{}
	for name, c := range map[string]struct {
		becomes string // what the second build gives; empty: the same
		inputs  func() // before they are known
		during  func(engine.TestRequest)
		made    []string // prepared, with the image's digest
	}{
		"the same":       {"", nil, nil, []string{"t0 same"}},
		"another":        {"other", nil, nil, []string{"t0 same", "t0 other"}},
		"known too late": {"other", func() { <-late }, func(engine.TestRequest) { close(late) }, []string{"t0 other"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				late = make(chan struct{})
				b := newBench(t)
				b.Ahead = engine.Ahead{Sandboxes: 2, Memory: 1 << 30}
				b.run(t, tests(1, ""), engine.Options{})
				names := map[digest.Digest]string{digest.FromString("web" + c.becomes): "other"}
				names[digest.FromString("web")] = "same"
				var mu sync.Mutex
				var made []string
				build, prepare, inputs := b.Build, b.Prepare, b.Inputs
				b.Inputs = func(ctx context.Context, task pipeline.Task, bases map[string]store.Base) (engine.Inputs, error) {
					if c.inputs != nil {
						c.inputs()
					}
					return inputs(ctx, task, bases)
				}
				b.Build = func(ctx context.Context, r engine.BuildRequest) (engine.Built, error) {
					synctest.Wait() // for what can be foreseen
					built, err := build(ctx, r)
					built.Image.Descriptor.Digest = digest.FromString("web" + c.becomes)
					return built, err
				}
				b.Prepare = func(ctx context.Context, r engine.TestRequest) (engine.Sandbox, error) {
					mu.Lock()
					made = append(made, r.Task.Test.Name+" "+names[r.Image.Descriptor.Digest])
					mu.Unlock()
					return prepare(ctx, r)
				}
				b.during = c.during
				b.run(t, tests(1, ""), engine.Options{RerunTests: true})
				if !slices.Equal(made, c.made) {
					t.Errorf("prepared %q, want %q", made, c.made)
				}
			})
		})
	}
}

// Any plan, on any machine, with any bound: it ends, nothing stays open, and
// what stands ready stays within the bound.
func TestAnyPlan(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		b := newBench(t)
		cores := 1 + r.IntN(3)
		b.Machine = schedule.New(schedule.Share{CPUs: float64(cores), Memory: 4 << 30}, r.IntN(3))
		b.Ahead = engine.Ahead{Sandboxes: r.IntN(5), Memory: 1 << 30}
		var yaml strings.Builder
		yaml.WriteString("version: 1\nimages:\n")
		for i := range 1 + r.IntN(3) {
			image := fmt.Sprint("i", i)
			fmt.Fprintf(&yaml, "  %s:\n    build: %s\n    tests:\n", image, image)
			if r.IntN(6) == 0 {
				b.fails[image] = "no"
			}
			for n := range 1 + r.IntN(5) {
				needs := ""
				if n > 0 && r.IntN(2) == 0 {
					needs = fmt.Sprintf(", needs: [t%d]", r.IntN(n))
				}
				fmt.Fprintf(&yaml, "      t%d: {command: x, retry: %d, resources: {cpus: %d}%s}\n", n, r.IntN(2), 1+r.IntN(4), needs)
				switch task := fmt.Sprintf("%s/t%d", image, n); r.IntN(6) {
				case 0:
					b.tests[task] = []any{failed, failed}
				case 1:
					b.tests[task] = []any{errors.New("broke")}
				}
			}
		}
		b.during = func(engine.TestRequest) {
			b.mu.Lock()
			defer b.mu.Unlock()
			// Those whose turn it is may hold one each that has not run yet.
			if b.ready > b.Ahead.Sandboxes+cores {
				t.Errorf("seed %d: %d stand ready, %d may, on %d cores", seed, b.ready, b.Ahead.Sandboxes, cores)
			}
		}
		run := b.run(t, yaml.String(), engine.Options{})
		for _, im := range run.Images {
			for _, x := range im.Tests {
				if x.State == "" {
					t.Errorf("seed %d: %s/%s has no state", seed, im.Name, x.Name)
				}
			}
		}
	}
}
