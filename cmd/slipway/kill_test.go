package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/pipeline"
)

// TestKilledAtAnyMoment kills slipway -9 at random within each phase of a run.
// The next run must pass, and leave nothing behind.
func TestKilledAtAnyMoment(t *testing.T) {
	p := newPlace(t)
	p.write(t, ".ci.yml", "version: 1\nimages: {a: {build: {context: ., args: {N: \"${{ event.ref }}\"}}, tests: {t: {command: \"echo begun; sleep 0.2; echo ended\"}}}}\n")
	p.write(t, "Dockerfile", "FROM example.com/base:1\nARG N\nRUN echo $N > /n; sleep 0.2; head -c 3000000 /dev/urandom > /big\nCOPY .ci.yml /\nRUN --mount=type=cache,target=/c echo $N >> /c/all; cat /n\n")
	phases := []struct {
		name, from string        // the line of progress it begins with
		within     time.Duration // how long it lasts, roughly
	}{
		{"build", "] RUN echo", 500 * time.Millisecond},
		{"export", "exporting to image", 150 * time.Millisecond},
		{"sandbox", "begun", 200 * time.Millisecond},
		{"cleanup", "ended", 60 * time.Millisecond},
	}
	n := 0
	for _, phase := range phases {
		killed, want := 0, soak(2, 25)
		for tries := 0; killed < want && tries < 4*want; tries++ { // some runs end before the blow
			n++
			if p.kill(t, fmt.Sprint("refs/heads/", n), phase.from, rand.N(phase.within)) {
				killed++
			}
			if run := p.run(t, "--ref", fmt.Sprint("refs/heads/", n)); run.State != pipeline.Passed {
				t.Fatalf("after a kill in %s the next run %s: %s", phase.name, run.State, run.Reason)
			}
			p.nothingLeft(t, phase.name)
		}
		t.Logf("%s: killed %d times", phase.name, killed)
		if killed < want {
			t.Errorf("only %d of %d runs were killed in %s: the phase is not found any more", killed, want, phase.name)
		}
	}
}

// kill starts a run and kills it after a while from the line that holds from.
// It reports whether the run was still going.
func (p place) kill(t *testing.T, ref, from string, after time.Duration) bool {
	t.Helper()
	cmd := p.slipway("run", "pipeline", p.dir, "--rerun-tests", "--ref", ref)
	progress, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(progress)
	seen := false
	for lines.Scan() {
		if strings.Contains(lines.Text(), from) {
			seen = true
			break
		}
	}
	if !seen {
		t.Fatalf("no line with %q: %v", from, cmd.Wait())
	}
	time.Sleep(after)
	_ = cmd.Process.Kill()        // it may have ended by itself
	io.Copy(io.Discard, progress) //nolint:errcheck // it ends with the process
	_ = cmd.Wait()                // "signal: killed" is what is wanted
	return cmd.ProcessState.ExitCode() == -1
}

// nothingLeft fails when the root has a mount, cgroup, process or temporary file left.
func (p place) nothingLeft(t *testing.T, when string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), p.root+"/") {
		t.Errorf("%s: mounts are left under %s", when, p.root)
	}
	for _, pattern := range []string{
		"/sys/fs/cgroup" + cgroupOf(p.root), "/sys/fs/cgroup/*" + cgroupOf(p.root),
		p.root + "/runner/*", p.root + "/tmp/*", p.root + "/builder/tmp/*", p.root + "/builder/step/*",
		p.root + "/builder/worker/executor/*/rootfs", p.root + "/builder/runc/state/*", p.root + "/records/*/*/.new-*",
	} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) > 0 {
			t.Errorf("%s: left: %v", when, left)
		}
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range procs {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), p.root) {
			t.Errorf("%s: a process is left: %q", when, line)
		}
	}
}

// TestKilledWithServices kills slipway -9 while services start, run and end. The
// next run must pass, and leave nothing behind.
func TestKilledWithServices(t *testing.T) {
	p := newPlace(t)
	p.write(t, ".ci.yml", `version: 1
images: {a: {build: ., tests: {t: {command: "nc db 80; echo begun; sleep 0.1; echo ended", volumes: ["rows:/rows"], services: [db]}}}}
services:
  db: {image: "example.com/base:1", command: [sh, -c, "sleep 0.1; exec nc -ll -p 80 -e echo hello"], volumes: ["rows:/rows"], depends_on: [log, load], healthcheck: {test: nc db 80, interval: 1s, retries: 60}}
  log: {image: "example.com/base:1", command: [sleep, "600"]}
  load: {image: "example.com/base:1", command: [sh, -c, "echo 1 > /rows/all"], volumes: ["rows:/rows"]}
volumes: {rows: {}}
`)
	p.write(t, "Dockerfile", "FROM example.com/base:1\n")
	for _, phase := range []struct {
		name, from string
		within     time.Duration
	}{
		{"start", "exporting to image", 600 * time.Millisecond},
		{"test", "begun", 100 * time.Millisecond},
		{"end", "ended", 60 * time.Millisecond},
	} {
		killed, want := 0, soak(1, 35)
		for tries := 0; killed < want && tries < 4*want; tries++ {
			if p.kill(t, "refs/heads/main", phase.from, rand.N(phase.within)) {
				killed++
			}
			if run := p.run(t, "--rerun-tests"); run.State != pipeline.Passed {
				t.Fatalf("after a kill in %s the next run %s: %s", phase.name, run.State, run.Reason)
			}
			p.nothingLeft(t, phase.name)
			p.nothingHeld(t, phase.name)
		}
		t.Logf("%s: killed %d times", phase.name, killed)
		if killed < want {
			t.Errorf("only %d of %d runs were killed in %s: the phase is not found any more", killed, want, phase.name)
		}
	}
}
