// Package examples runs every example of this repository with the real slipway,
// as its README says to, and checks what a user would look at: the exit code,
// the JSON document and the screen. It refuses to look inside slipway.
package examples

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/need"
)

// run is the document of `slipway run pipeline --json`, as far as the examples look at it.
type run struct {
	State  string `json:"state"`
	Plan   string `json:"plan"`
	Images []struct {
		Name   string            `json:"name"`
		Matrix map[string]string `json:"matrix"`
		State  string            `json:"state"`
		Reason string            `json:"reason"`
		Digest string            `json:"digest"`
		Tests  []test            `json:"tests"`
	} `json:"images"`
}

type test struct {
	Name       string `json:"name"`
	State      string `json:"state"`
	ExitCode   int    `json:"exit_code"`
	ReusedFrom string `json:"reused_from"`
	Attempts   int    `json:"attempts"`
}

// summary writes a run as lines, for comparison: "image[matrix] state", then
// "  test state" with what is unusual about it.
func (r run) summary() string {
	var b strings.Builder
	b.WriteString(r.State + "\n")
	for _, im := range r.Images {
		b.WriteString(im.Name)
		if v, ok := im.Matrix["python"]; ok {
			b.WriteString("[" + v + "]")
		}
		b.WriteString(" " + im.State + "\n")
		for _, t := range im.Tests {
			b.WriteString("  " + t.Name + " " + t.State)
			if t.ReusedFrom != "" {
				b.WriteString(" reused")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// root is one state directory with the base images of an example in it.
type root struct {
	t   *testing.T
	dir string // --root
}

// newRoot makes it. What an example needs and this machine lacks skips the
// test, or fails it where SLIPWAY_REQUIRE names the thing.
func newRoot(t *testing.T, example string) root {
	t.Helper()
	need.Root(t)
	_, err := os.Stat(program(t))
	need.Have(t, "slipway", err)
	need.Tool(t, "mmdebstrap")

	r := root{t: t, dir: filepath.Join(need.OpenDir(t), "root")}
	cmd := exec.Command(filepath.Join("..", "..", "examples", "bases"), example)
	cmd.Env = append(os.Environ(), "SLIPWAY="+program(t), "SLIPWAY_ROOT="+r.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("examples/bases %s: %v\n%s", example, err, out)
	}
	return r
}

// program is the slipway that `make build` made.
func program(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", "slipway"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// slipway runs it on this root and returns its exit code and both outputs.
func (r root) slipway(args ...string) (code int, stdout, stderr string) {
	r.t.Helper()
	cmd := exec.Command(program(r.t), args...)
	cmd.Env = append(os.Environ(), "SLIPWAY_ROOT="+r.dir, "NO_COLOR=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	r.t.Logf("slipway %s: exit code %d\n%s%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), errs.String(), out.String())
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// pipeline runs the pipeline of dir and checks the exit code.
func (r root) pipeline(wantCode int, dir string, flags ...string) run {
	r.t.Helper()
	code, stdout, _ := r.slipway(append([]string{"run", "pipeline", dir, "--json"}, flags...)...)
	if code != wantCode {
		r.t.Fatalf("exit code %d, want %d", code, wantCode)
	}
	var doc run
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
		r.t.Fatalf("stdout is not one JSON document: %v\n%s", err, stdout)
	}
	if !strings.HasPrefix(doc.Plan, "sha256:") {
		r.t.Errorf("plan is %q, want a digest", doc.Plan)
	}
	return doc
}

// want compares a run with the lines a reader expects.
func (r root) want(got run, lines ...string) {
	r.t.Helper()
	if have, want := got.summary(), strings.Join(lines, "\n")+"\n"; have != want {
		r.t.Errorf("got:\n%swant:\n%s", have, want)
	}
}

// example is the directory of an example.
func example(name string) string { return filepath.Join("..", "..", "examples", name) }

// copied gives a copy of an example that the test may change.
func copied(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(example(name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// edit replaces old by new in a file, where it must stand exactly once.
func edit(t *testing.T, path, old, replacement string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), old); n != 1 {
		t.Fatalf("%s holds %q %d times, want once", path, old, n)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, replacement, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}
