package main

import (
	"bufio"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"slipway/pipeline"
)

// TestInterrupt sends one Ctrl-C, which ends the run in order, and two, which
// end the process at once. Either way exit code 130, and nothing stays behind.
func TestInterrupt(t *testing.T) {
	p := newPlace(t)
	p.write(t, ".ci.yml", "version: 1\nimages: {a: {build: ., tests: {t: {command: \"trap '' INT TERM; echo begun; sleep 100\", services: [db]}}}}\n"+
		"services: {db: {image: \"example.com/base:1\", command: [sh, -c, \"trap '' INT TERM; while :; do sleep 1; done\"]}}\n")
	p.write(t, "Dockerfile", "FROM example.com/base:1\nRUN echo building; sleep 100\n")
	for _, when := range []struct {
		name, from string
		signals    int
	}{{"in a build step", "building", 1}, {"in a test", "begun", 1}, {"twice in a test", "begun", 2}} {
		if when.from == "begun" {
			p.write(t, "Dockerfile", "FROM example.com/base:1\n")
		}
		code := p.interrupt(t, when.from, when.signals)
		if code != exitCanceled {
			t.Errorf("%s: exit code %d", when.name, code)
		}
		if when.signals == 1 {
			run := p.lastRun(t)
			if run.State != pipeline.Canceled || !strings.Contains(run.Reason, "interrupted") {
				t.Errorf("%s: the run is %s: %s", when.name, run.State, run.Reason)
			}
		} else {
			p.must(t, "images") // what was cut off is reaped at the next start
			p.settled(t)
		}
		p.nothingLeft(t, when.name)
	}
}

func (p place) interrupt(t *testing.T, from string, signals int) int {
	t.Helper()
	cmd := p.slipway("run", "pipeline", p.dir)
	progress, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(progress)
	for lines.Scan() && !strings.Contains(lines.Text(), " "+from) {
	}
	for range signals {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // two signals at once may arrive as one
	}
	rest, err := io.ReadAll(progress)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code says it
	if cmd.ProcessState.ExitCode() != exitCanceled {
		t.Logf("%s", rest)
	}
	return cmd.ProcessState.ExitCode()
}
