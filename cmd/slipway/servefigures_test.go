package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/internal/need"
)

// TestServeFigures says what the built program takes as a server: memory while it has
// nothing to do, and the times from a webhook to the first line of the run's log, to
// what its test prints, and to the success that the forge is told.
//
//	SLIPWAY_SOAK=1 go test -tags seccomp -run TestServeFigures -v ./cmd/slipway
func TestServeFigures(t *testing.T) {
	program := need.Tool(t, "slipway")
	v := servedOptions{forge: true}.serve(t)
	v.program = program
	v.write(t, ".ci.yml", "version: 1\nimages: {web: {build: ., tests: {unit: {command: \"echo hello from the test\"}}}}\n")
	v.start(t)
	time.Sleep(3 * time.Second) // what it does at its start is over
	idle := v.memory(t)
	before := v.commit(t, "hello")
	v.push(t, "first", zeros, before) // fetches and builds all
	v.told(t, before)
	figures := map[string][]time.Duration{}
	for n := range soak(2, 20) {
		commit := v.commit(t, fmt.Sprint("change ", n))
		k := &killing{t: t, records: len(v.records())}
		began := time.Now()
		v.push(t, fmt.Sprint("d", n), before, commit)
		for _, at := range []struct{ name, text string }{{"first line", "fetching"}, {"test's line", `"text":"hello from the test`}} {
			for !k.logs(v, at.text) {
				if time.Since(began) > time.Minute {
					t.Fatalf("no %q within a minute\n%s", at.text, v.said())
				}
				time.Sleep(time.Millisecond)
			}
			figures[at.name] = append(figures[at.name], time.Since(began))
		}
		v.told(t, commit)
		figures["success"] = append(figures["success"], time.Since(began))
		before = commit
	}
	t.Logf("idle: %s; after the runs: %s", idle, v.memory(t))
	for name, all := range figures {
		slices.Sort(all)
		t.Logf("webhook to %s: half of %d within %s, all within %s", name, len(all), all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond))
	}
}

// told waits until the forge shows a commit as good.
func (v *served) told(t *testing.T, commit string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !slices.Contains(v.forge.states(commit), "success"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the forge was told of %.12s: %v\n%s", commit, v.forge.states(commit), v.said())
		}
	}
}

// memory is what the server's process has of it, its own and that of files.
func (v *served) memory(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(data)) {
		if name, size, ok := strings.Cut(line, ":"); ok && slices.Contains([]string{"VmRSS", "RssAnon"}, name) {
			all = append(all, name+" "+strings.TrimSpace(size))
		}
	}
	return strings.Join(all, ", ")
}
