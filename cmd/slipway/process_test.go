package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/need"
	"slipway/internal/store"
)

// place is a root and a pipeline directory of their own, with a base image.
type place struct {
	root, dir string
	env       []string
	program   string // what slipway is; empty: this test program
}

func newPlace(t *testing.T) place {
	t.Helper()
	return newPlaceOn(t, 0)
}

// newPlaceOn has a root that is a file system of so many bytes of its own; 0: a directory.
func newPlaceOn(t *testing.T, disk int64) place {
	t.Helper()
	helpers := requireSandbox(t)
	top := need.OpenDir(t)
	p := place{root: filepath.Join(top, "root"), dir: filepath.Join(top, "app")}
	p.env = append(os.Environ(), "SLIPWAY_ROOT="+p.root, "SLIPWAY_HELPERS="+helpers, "SLIPWAY_PROGRESS=plain", "HOME="+top)
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if disk > 0 {
		smallDisk(t, p.root, disk)
	}
	tar := filepath.Join(top, "busybox.tar")
	if err := busyboxTar(tar); err != nil {
		t.Fatal(err)
	}
	p.must(t, "images", "import", tar, "--name", "example.com/base:1")
	return p
}

// slipway is a command of this very test program, which acts as slipway under that name.
func (p place) slipway(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	if p.program != "" {
		self = p.program
	}
	return &exec.Cmd{Path: self, Args: append([]string{"slipway"}, args...), Env: p.env}
}

func (p place) must(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := p.slipway(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("slipway %s: %v\n%s%s", strings.Join(args, " "), err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes()
}

func (p place) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run runs the pipeline and gives its record; any exit code will do.
func (p place) run(t *testing.T, args ...string) store.Run {
	t.Helper()
	cmd := p.slipway(append([]string{"run", "pipeline", p.dir, "--json"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, _ := cmd.Output() // the document says what became of it
	var run store.Run
	if err := json.Unmarshal(out, &run); err != nil {
		t.Fatalf("not a run: %v\n%s%s", err, out, errs.Bytes())
	}
	return run
}

// soak picks a count: few in every test run, many in `make soak`.
func soak(few, many int) int {
	if os.Getenv("SLIPWAY_SOAK") != "" {
		return many
	}
	return few
}

func (p place) lastRun(t *testing.T) store.Run {
	t.Helper()
	var run store.Run
	if err := json.Unmarshal(p.must(t, "runs", "last", "--json"), &run); err != nil {
		t.Fatal(err)
	}
	return run
}

// settled waits until a helper that was cut off has removed its sandboxes.
func (p place) settled(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		left, err := filepath.Glob(p.root + "/runner/*")
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("sandboxes are left: %v", left)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
