package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"slipway/internal/engine"
	"slipway/internal/store"
	"slipway/pipeline"
)

const served = `version: 1
images:
  web: {build: web, services: [db], tests: {it: {command: x}, ui: {command: y, services: [db, ours]}, alone: {command: z, network: none}}}
  data: {build: data}
services:
  db: {image: "mysql:8", depends_on: [cache]}
  cache: {image: "redis:8"}
  ours: {image: "image:data"}
`

func newServed(t *testing.T) *bench {
	b := newBench(t)
	b.images = map[string]any{"mysql:8": digest.FromString("mysql"), "redis:8": digest.FromString("redis")}
	return b
}

func count(all []string, one string) (n int) {
	for _, s := range all {
		if s == one {
			n++
		}
	}
	return n
}

func TestServicesOfATest(t *testing.T) {
	b := newServed(t)
	run := b.run(t, served, engine.Options{})
	if run.State != pipeline.Passed || count(b.did, "fetch mysql:8") != 1 || count(b.did, "fetch redis:8") != 1 {
		t.Fatalf("%s %s after %v", run.State, run.Reason, b.did)
	}
	cache := store.Service{Name: "cache", Image: "redis:8", Digest: digest.FromString("redis").String()}
	db := store.Service{Name: "db", Image: "mysql:8", Digest: digest.FromString("mysql").String()}
	ours := store.Service{Name: "ours", Image: "image:data", Digest: digest.FromString("data").String()}
	for i, want := range [][]store.Service{{cache, db}, {cache, db, ours}, nil} {
		if got := run.Images[0].Tests[i]; !slices.Equal(got.Services, want) {
			t.Errorf("beside %s ran %v, want %v", got.Name, got.Services, want)
		}
	}
}

// A test whose services have changed runs again, and a forecast knows it.
func TestServicesAreInTheReuseKey(t *testing.T) {
	b := newServed(t)
	b.known = map[string]digest.Digest{"mysql:8": digest.FromString("mysql"), "redis:8": digest.FromString("redis")}
	b.run(t, served, engine.Options{})
	for _, c := range []struct {
		name string
		do   func()
		yaml string
		cast string // of it, ui and alone
		ran  []string
	}{
		{"nothing", func() {}, served, "reused reused reused", nil},
		{"a tag moved", func() {
			b.images["redis:8"] = digest.FromString("redis 2")
			b.known["redis:8"] = digest.FromString("redis 2")
		}, served, "run run reused", []string{"test web/it", "test web/ui"}},
		{"a definition", func() {}, strings.Replace(served, `"image:data"`, `"image:data", command: [serve]`, 1), "reused run reused", []string{"test web/ui"}},
		{"its own image", func() { b.salts = map[string]string{"data": "x"} }, served, "reused run reused", []string{"test web/ui"}},
		{"a registry was not asked", func() { delete(b.known, "mysql:8") }, served, "unknown unknown reused", nil},
	} {
		c.do()
		cast, err := b.Forecast(t.Context(), plan(t, c.yaml), engine.Options{Dir: "/src"})
		if err != nil {
			t.Fatal(err)
		}
		var states []string
		for _, x := range cast.Images[0].Tests {
			states = append(states, x.State)
		}
		if got := strings.Join(states, " "); got != c.cast {
			t.Errorf("%s: the forecast is %s, want %s", c.name, got, c.cast)
		}
		b.run(t, c.yaml, engine.Options{})
		var ran []string
		for _, did := range b.did {
			if strings.HasPrefix(did, "test ") {
				ran = append(ran, did)
			}
		}
		slices.Sort(ran)
		if !slices.Equal(ran, c.ran) {
			t.Errorf("%s: %v ran, want %v", c.name, ran, c.ran)
		}
	}
}

func TestServiceImagesThatCannotBeHad(t *testing.T) {
	b := newServed(t)
	b.images["redis:8"] = "no such tag"
	run := b.run(t, served, engine.Options{})
	if it := run.Images[0].Tests[0]; it.State != pipeline.Failed || it.Reason != "service cache: fetch its image redis:8: no such tag" {
		t.Errorf("the test %s: %s", it.State, it.Reason)
	}
	if alone := run.Images[0].Tests[2]; alone.State != pipeline.Passed {
		t.Errorf("a test without services %s: %s", alone.State, alone.Reason)
	}
	b.images["redis:8"] = errors.New("the registry is down")
	run = b.run(t, served, engine.Options{})
	if it := run.Images[0].Tests[0]; it.State != pipeline.Error || !strings.Contains(it.Reason, "the registry is down") || count(b.did, "fetch redis:8") != 3 {
		t.Errorf("the test %s: %s; after %v", it.State, it.Reason, b.did)
	}
}

func TestServicesInAForecast(t *testing.T) {
	b := newServed(t)
	b.known = map[string]digest.Digest{"redis:8": digest.FromString("redis")}
	cast, err := b.Forecast(t.Context(), plan(t, served), engine.Options{Dir: "/src"})
	if err != nil {
		t.Fatal(err)
	}
	want := []engine.ServiceForecast{
		{Name: "cache", Image: "redis:8", Digest: digest.FromString("redis").String()},
		{Name: "db", Image: "mysql:8"},
		{Name: "ours", Image: "image:data"},
	}
	if !slices.Equal(cast.Services, want) {
		t.Errorf("the services are %v, want %v", cast.Services, want)
	}
	if len(b.did) != 0 {
		t.Errorf("a forecast did %v", b.did)
	}
}

// What a service sees of the repository counts as what its test sees.
func TestFixturesOfServices(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"conf/a": "1", "vars.env": "A=1", "other": "1"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	p := plan(t, `version: 1
images: {web: {build: ., tests: {it: {command: x, services: [db]}}}}
services: {db: {image: "mysql:8", env_file: vars.env, volumes: ["./conf:/conf"]}}
`)
	task := p.Tasks[1]
	last, err := engine.Fixtures(dir)(t.Context(), p, task)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file    string
		changes bool
	}{{"other", false}, {"conf/a", true}, {"vars.env", true}} {
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte("A=2"), 0o644); err != nil {
			t.Fatal(err)
		}
		now, err := engine.Fixtures(dir)(t.Context(), p, task)
		if err != nil {
			t.Fatal(err)
		}
		if (now != last) != c.changes {
			t.Errorf("after a change of %s: %s, then %s", c.file, last, now)
		}
		last = now
	}
}
