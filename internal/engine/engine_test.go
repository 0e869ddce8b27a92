package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/engine"
	"slipway/internal/schedule"
	"slipway/internal/store"
	"slipway/pipeline"
)

// bench is an engine whose builds and tests are written down instead of done.
type bench struct {
	*engine.Engine
	mu     sync.Mutex
	did    []string
	tests  map[string][]any          // task → what each attempt gives: a pipeline.Result or an error
	fails  map[string]any            // task → why its build fails: a string (the user's) or an error
	during func(engine.TestRequest)  // called in each attempt
	salt   string                    // part of every image's inputs
	salts  map[string]string         // the same for one
	given  map[string]pipeline.Image // images that came with the last test
	beside map[string]engine.Service // and services
	images map[string]any            // reference → what a registry has: a digest, why it has none (a string), or an error
	known  map[string]digest.Digest  // references whose digests a forecast knows
	made   []string                  // tasks whose sandboxes were prepared, in order
	open   int                       // sandboxes that are not closed
	ready  int                       // of those, the ones that have not run
}

func newBench(t *testing.T) *bench {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{tests: map[string][]any{}, fails: map[string]any{}}
	b.Engine = &engine.Engine{
		Build: b.build, Prepare: b.prepare, Inputs: b.inputs, Store: s, Machine: schedule.New(schedule.Share{CPUs: 4, Memory: 16 << 30}, 0), Progress: func(pipeline.Progress) {},
		Fixtures: func(context.Context, pipeline.Plan, pipeline.Task) (digest.Digest, error) {
			return digest.FromString("fixtures"), nil
		},
		Fetch: b.fetch, Known: func(reference string) digest.Digest { return b.known[reference] },
	}
	return b
}

func (b *bench) fetch(_ context.Context, reference string) (engine.Fetched, error) {
	b.note("fetch " + reference)
	switch has := b.images[reference].(type) {
	case digest.Digest:
		return engine.Fetched{Image: pipeline.Image{Repository: reference, Descriptor: ocispec.Descriptor{Digest: has}}}, nil
	case error:
		return engine.Fetched{}, has
	default:
		return engine.Fetched{Failure: fmt.Sprint(has)}, nil
	}
}

func (b *bench) note(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.did = append(b.did, s)
}

func (b *bench) build(_ context.Context, r engine.BuildRequest) (engine.Built, error) {
	b.note("build " + r.Task.ID)
	switch why := b.fails[r.Task.ID].(type) {
	case string:
		return engine.Built{Failure: why}, nil
	case error:
		return engine.Built{}, why
	}
	image := pipeline.Image{Repository: r.Task.Image, Descriptor: ocispec.Descriptor{Digest: digest.FromString(r.Task.ID + b.salt + b.salts[r.Task.ID])}}
	return engine.Built{Image: image, Cached: b.Store.Built(b.key(r.Task))}, nil
}

func (b *bench) key(task pipeline.Task) digest.Digest {
	return digest.FromString("inputs of " + task.ID + b.salt + b.salts[task.ID])
}

func (b *bench) inputs(_ context.Context, task pipeline.Task, _ map[string]store.Base) (engine.Inputs, error) {
	key := b.key(task)
	return engine.Inputs{Key: key, Steps: []digest.Digest{key}, Raw: json.RawMessage("1"), Predict: func(built func(digest.Digest) bool, _ json.RawMessage) (string, string) {
		if built(key) {
			return engine.Cached, ""
		}
		return engine.WillBuild, "changed"
	}}, nil
}

func (b *bench) prepare(_ context.Context, r engine.TestRequest) (engine.Sandbox, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.made = append(b.made, r.Task.ID)
	b.open++
	b.ready++
	idle := true
	used := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if idle {
			idle = false
			b.ready--
		}
	}
	var closed bool
	return engine.Sandbox{
		Run: func(ctx context.Context, _ time.Time, out io.Writer) (pipeline.Result, error) {
			used()
			return b.test(ctx, r, out)
		},
		Close: func() {
			used()
			b.mu.Lock()
			defer b.mu.Unlock()
			if closed {
				panic("closed twice")
			}
			closed = true
			b.open--
		},
	}, nil
}

func (b *bench) test(ctx context.Context, r engine.TestRequest, out io.Writer) (pipeline.Result, error) {
	b.note("test " + r.Task.ID)
	b.mu.Lock()
	b.given, b.beside = r.Images, r.Services
	b.mu.Unlock()
	if b.during != nil {
		b.during(r)
	}
	if err := ctx.Err(); err != nil {
		return pipeline.Result{State: pipeline.Canceled}, nil
	}
	fmt.Fprintln(out, "hello")
	if queue := b.tests[r.Task.ID]; r.Attempt <= len(queue) {
		switch x := queue[r.Attempt-1].(type) {
		case error:
			return pipeline.Result{State: pipeline.Error}, x
		case pipeline.Result:
			return x, nil
		}
	}
	return pipeline.Result{State: pipeline.Passed}, nil
}

func (b *bench) run(t *testing.T, yaml string, opt engine.Options) store.Run {
	t.Helper()
	b.did = nil
	opt.ID, opt.Dir = store.NewRunID(time.Now()), "/src"
	opt.Event = func() (pipeline.Event, error) { return pipeline.Event{Commit: "abc"}, nil }
	run, err := b.Engine.Run(t.Context(), plan(t, yaml), opt)
	if err != nil {
		t.Fatal(err)
	}
	b.allClosed(t)
	return run
}

func (b *bench) allClosed(t *testing.T) {
	t.Helper()
	if b.open != 0 || b.ready != 0 {
		t.Errorf("%d sandboxes are open after the run, %d of them never used", b.open, b.ready)
	}
}

func plan(t *testing.T, yaml string) pipeline.Plan {
	t.Helper()
	p, err := pipeline.Parse(".ci.yml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := p.Expand(pipeline.Event{})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

const two = `version: 1
images:
  base: {build: base}
  web:
    build: {context: web, additional_contexts: {base: "image:base"}}
    tests:
      unit: {command: [unit], retry: 1}
      it: {command: [it], needs: [unit]}
`

var failed = pipeline.Result{State: pipeline.Failed, ExitCode: 3, Reason: "exit code 3"}

func TestRunStates(t *testing.T) {
	broke := errors.New("sandbox broke")
	tests := []struct {
		name  string
		tests map[string][]any
		fails map[string]any
		state pipeline.State
		unit  string // state/attempts/flaky
		it    string
		did   int
	}{
		{name: "green", state: "passed", unit: "passed/1/false", it: "passed/1/false", did: 4},
		{name: "flaky", tests: map[string][]any{"web/unit": {failed}}, state: "passed", unit: "passed/2/true", it: "passed/1/false", did: 5},
		{name: "failed", tests: map[string][]any{"web/unit": {failed, failed}}, state: "failed", unit: "failed/2/false", it: "skipped/0/false", did: 4},
		{name: "slipway's own failure is tried again and is not flaky", tests: map[string][]any{"web/unit": {broke, broke}}, state: "passed", unit: "passed/3/false", it: "passed/1/false", did: 6},
		{name: "slipway fails for good", tests: map[string][]any{"web/unit": {broke, broke, broke}}, state: "error", unit: "error/3/false", it: "skipped/0/false", did: 5},
		{name: "own failure, then the user's", tests: map[string][]any{"web/unit": {broke, failed}}, state: "passed", unit: "passed/3/true", it: "passed/1/false", did: 6},
		{name: "Dockerfile fails", fails: map[string]any{"web": "step 2 failed"}, state: "failed", unit: "skipped/0/false", it: "skipped/0/false", did: 2},
		{name: "builder breaks", fails: map[string]any{"web": broke}, state: "error", unit: "skipped/0/false", it: "skipped/0/false", did: 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			for k, v := range tt.tests {
				b.tests[k] = v
			}
			for k, v := range tt.fails {
				b.fails[k] = v
			}
			run := b.run(t, two, engine.Options{})
			web := run.Images[1]
			got := func(x store.Test) string { return fmt.Sprintf("%s/%d/%v", x.State, x.Attempts, x.Flaky) }
			if run.State != tt.state || got(web.Tests[0]) != tt.unit || got(web.Tests[1]) != tt.it || len(b.did) != tt.did {
				t.Errorf("run %s, unit %s, it %s after %v; want %s, %s, %s after %d", run.State, got(web.Tests[0]), got(web.Tests[1]), b.did, tt.state, tt.unit, tt.it, tt.did)
			}
			if recorded, err := b.Store.Run(run.ID); err != nil || recorded.State != run.State {
				t.Errorf("the record says %s, %v", recorded.State, err)
			}
		})
	}
}

func TestReuse(t *testing.T) {
	b := newBench(t)
	first := b.run(t, two, engine.Options{})
	again := b.run(t, two, engine.Options{})
	if slices.ContainsFunc(b.did, func(s string) bool { return strings.HasPrefix(s, "test") }) {
		t.Errorf("tests ran again: %v", b.did)
	}
	if got := again.Images[1].Tests[0]; got.ReusedFrom != first.ID || got.State != pipeline.Passed {
		t.Errorf("unit = %+v; want it reused from %s", got, first.ID)
	}
	for name, c := range map[string]struct {
		yaml string
		opt  engine.Options
		salt string
		want int
	}{
		"--rerun-tests":      {two, engine.Options{RerunTests: true}, "", 2},
		"--no-cache":         {two, engine.Options{NoCache: true}, "", 2},
		"another image":      {two, engine.Options{}, "x", 2},
		"another command":    {strings.Replace(two, "[unit], retry", "[unit2], retry", 1), engine.Options{}, "", 1},
		"internet":           {strings.Replace(two, "[unit], retry", "[unit], network: internet, retry", 1), engine.Options{}, "", 1},
		"cache: false":       {strings.Replace(two, "[unit], retry", "[unit], cache: false, retry", 1), engine.Options{}, "", 1},
		"nothing is changed": {two, engine.Options{}, "", 0},
	} {
		b.salt = c.salt
		b.run(t, c.yaml, c.opt)
		n := 0
		for _, did := range b.did {
			if strings.HasPrefix(did, "test") {
				n++
			}
		}
		if n != c.want {
			t.Errorf("%s: %d tests ran, want %d: %v", name, n, c.want, b.did)
		}
	}
}

// A test that mounts what another image holds waits for that image, is given
// it, and runs again when it changes.
func TestSeedFromAnImage(t *testing.T) {
	b := newBench(t)
	const seeded = `version: 1
images:
  web: {build: web, tests: {it: {command: x, volumes: ["rows:/rows"]}}}
  data: {build: data}
volumes: {rows: {from: "image:data:/rows"}}
`
	b.run(t, seeded, engine.Options{})
	if len(b.given) != 2 || b.given["data"].Descriptor.Digest != digest.FromString("data") {
		t.Errorf("the test was given %v", b.given)
	}
	for _, c := range []struct {
		salts          map[string]string
		forecast, want string
	}{
		{map[string]string{}, engine.Reused, ""},
		{map[string]string{"data": "other rows"}, engine.WillRun, "test web/it"},
		{map[string]string{"data": "other rows"}, engine.Reused, ""},
		{map[string]string{}, engine.Reused, ""},
	} {
		b.salts = c.salts
		cast, err := b.Forecast(t.Context(), plan(t, seeded), engine.Options{Dir: "/src"})
		if err != nil {
			t.Fatal(err)
		}
		for _, im := range cast.Images {
			for _, x := range im.Tests {
				if x.State != c.forecast {
					t.Errorf("with %v the forecast is %s (%s), want %s", c.salts, x.State, x.Reason, c.forecast)
				}
			}
		}
		b.run(t, seeded, engine.Options{})
		if ran := slices.Contains(b.did, "test web/it"); ran != (c.want != "") {
			t.Errorf("with %v: %v", c.salts, b.did)
		}
	}
}

func TestAFlakyPassIsNotReused(t *testing.T) {
	b := newBench(t)
	b.tests["web/unit"] = []any{failed}
	b.run(t, two, engine.Options{})
	run := b.run(t, two, engine.Options{})
	if run.Images[1].Tests[0].ReusedFrom != "" {
		t.Error("a flaky pass was reused")
	}
}

func TestAFailureEndsReuse(t *testing.T) {
	b := newBench(t)
	b.run(t, two, engine.Options{})
	b.tests["web/unit"] = []any{failed, failed}
	if run := b.run(t, two, engine.Options{RerunTests: true}); run.State != pipeline.Failed {
		t.Fatalf("the run %s", run.State)
	}
	b.tests["web/unit"] = nil
	if run := b.run(t, two, engine.Options{}); run.Images[1].Tests[0].ReusedFrom != "" {
		t.Error("a pass from before the failure was reused")
	}
}

// TestWhatIsObserved: the signer is told of what passed and failed, of nothing
// else, and the record names what it signed.
func TestWhatIsObserved(t *testing.T) {
	b := newBench(t)
	b.tests["web/unit"] = []any{failed, failed}
	signed := digest.FromString("signed")
	var saw engine.Observed
	b.Prove = func(_ context.Context, o engine.Observed) engine.Proof {
		saw = o
		return engine.Proof{Attestations: map[string]digest.Digest{"web/unit": signed, "web": signed}, Unsigned: "half of it"}
	}
	run := b.run(t, two, engine.Options{})
	var got []string
	for _, im := range saw.Builds {
		got = append(got, im.Task.ID)
		for _, x := range im.Tests {
			got = append(got, fmt.Sprint(x.Task.ID, " ", x.Result.State))
			if x.Finished.IsZero() || x.Fixtures == "" {
				t.Errorf("%s: finished %v with fixtures %q", x.Task.ID, x.Finished, x.Fixtures)
			}
		}
	}
	if want := "base web web/unit failed"; strings.Join(got, " ") != want {
		t.Errorf("observed %q, want %q", got, want)
	}
	if im := run.Images[1]; run.Unsigned != "half of it" || im.Provenance != signed.String() || im.Tests[0].Attestation != signed.String() || run.Images[0].Provenance != "" {
		t.Errorf("recorded %+v", run)
	}
}

func TestForecastAgreesWithRun(t *testing.T) {
	b := newBench(t)
	forecast := func() string {
		cast, err := b.Forecast(t.Context(), plan(t, two), engine.Options{Dir: "/src"})
		if err != nil {
			t.Fatal(err)
		}
		var s []string
		for _, im := range cast.Images {
			s = append(s, im.State)
			for _, x := range im.Tests {
				s = append(s, x.State)
			}
		}
		return strings.Join(s, " ")
	}
	for _, step := range []struct {
		name, want string
		do         func()
	}{
		{"never built", "build build run run", func() {}},
		{"built", "cached cached reused reused", func() { b.run(t, two, engine.Options{}) }},
		{"changed", "build build run run", func() { b.salt = "new" }},
		{"pruned", "build build run run", func() {
			b.salt = ""
			if err := b.Store.Pruned(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		step.do()
		if got := forecast(); got != step.want {
			t.Errorf("%s: %s; want %s", step.name, got, step.want)
		}
	}
}

func TestCancel(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("the user said stop")
	b.during = func(engine.TestRequest) { cancel(stop) }
	run, err := b.Engine.Run(ctx, plan(t, two), engine.Options{ID: "r", Dir: "/src", Event: func() (pipeline.Event, error) { return pipeline.Event{}, nil }})
	if err != nil || run.State != pipeline.Canceled || run.Reason != stop.Error() {
		t.Fatalf("run %s (%s), %v", run.State, run.Reason, err)
	}
}

// A plan of many tests runs as many at once as the machine carries, in the order
// of the plan.
func TestTheMachineIsShared(t *testing.T) {
	b := newBench(t)
	b.Engine.Machine = schedule.New(schedule.Share{CPUs: 2, Memory: 2 << 30}, 0)
	yaml := "version: 1\nimages:\n  web:\n    build: .\n    tests:\n      large: {command: x, resources: {memory: 64G}}\n"
	for n := range 8 {
		yaml += fmt.Sprintf("      t%d: {command: x, resources: {cpus: 1, memory: 512M}}\n", n)
	}
	var mu sync.Mutex
	var now, peak int
	beside := map[string]int{} // how many run when a test starts
	gate := make(chan struct{})
	b.during = func(r engine.TestRequest) {
		mu.Lock()
		now++
		peak, beside[r.Task.ID] = max(peak, now), now
		if now == 2 && peak == 2 {
			select {
			case <-gate:
			default:
				close(gate)
			}
		}
		mu.Unlock()
		if r.Task.ID != "web/large" {
			<-gate // until two are in: else none might ever be beside another
		}
		mu.Lock()
		now--
		mu.Unlock()
	}
	run := b.run(t, yaml, engine.Options{})
	if run.State != pipeline.Passed || peak != 2 || beside["web/large"] != 1 {
		t.Fatalf("%s; at most %d ran at once on two cores, and the one that takes all of them was one of %d", run.State, peak, beside["web/large"])
	}
}
