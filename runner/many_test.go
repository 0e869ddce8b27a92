package runner_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/pipeline"
	"slipway/runner"
)

// TestManyAtOnce has many sandboxes stand ready at the same time (a hundred with
// SLIPWAY_SOAK), and then all of them run. What it took is logged: how long until
// all were ready, how long until all had run, and what one costs while it waits.
func TestManyAtOnce(t *testing.T) {
	n := 12
	if os.Getenv("SLIPWAY_SOAK") != "" {
		n = 100
	}
	b := open(t)
	b.passes(`true`) // the helper has started
	before := b.helperMemory()
	q := b.request(pipeline.Test{Command: []string{"/bin/sh", "-c", "readlink /proc/self/ns/pid; cat /proc/self/uid_map"}, Timeout: time.Minute})

	begun := time.Now()
	ready := make([]*runner.Sandbox, n)
	together(n, func(i int) {
		s, err := b.Prepare(t.Context(), q)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(s.Close)
		ready[i] = s
	})
	made := time.Since(begun)
	if t.Failed() {
		t.FailNow()
	}
	held, processes := b.cgroupMemory()
	if processes != n {
		t.Errorf("%d sandboxes hold processes, want %d", processes, n)
	}
	grown := b.helperMemory() - before

	begun = time.Now()
	said := make([]string, n)
	together(n, func(i int) {
		var out strings.Builder
		res, err := ready[i].Exec(t.Context(), time.Now(), &out)
		if err != nil || res.State != pipeline.Passed {
			t.Error(res.State, res.Reason, err)
		}
		said[i] = out.String()
		ready[i].Close()
	})
	ran := time.Since(begun)
	seen := map[string]bool{}
	for _, s := range said {
		for word := range strings.FieldsSeq(s) {
			if len(word) > 5 && seen[word] { // a pid namespace or the first of its ids
				t.Errorf("two sandboxes at the same time have %s", word)
			}
			seen[word] = len(word) > 5 && word != "65536"
		}
	}
	t.Logf("%d sandboxes: all ready after %s, all had run %s later; each waits with %d KiB in its cgroup and %d KiB of the helper",
		n, made.Round(time.Millisecond), ran.Round(time.Millisecond), held/int64(n)>>10, grown/int64(n)>>10)
}

// together calls f with 0 to n-1, all at the same time.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// cgroupMemory is what the kernel counts for all sandboxes, and how many there
// are with a process in them.
func (b *bench) cgroupMemory() (total int64, processes int) {
	b.Helper()
	for _, file := range []string{"/sys/fs/cgroup/memory" + b.opts.Cgroup + "/*/memory.usage_in_bytes", "/sys/fs/cgroup" + b.opts.Cgroup + "/*/memory.current"} {
		names, err := filepath.Glob(file)
		if err != nil {
			b.Fatal(err)
		}
		for _, name := range names {
			if procs, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cgroup.procs")); len(procs) > 0 {
				total += number(b, name)
				processes++
			}
		}
	}
	return total, processes
}

// helperMemory is what the process that makes this bench's sandboxes holds.
func (b *bench) helperMemory() (total int64) {
	b.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range all {
		line, _ := os.ReadFile(name)
		if !strings.Contains(string(line), "-cgroup\x00"+b.opts.Cgroup+"\x00") {
			continue
		}
		rollup, err := os.ReadFile(filepath.Join(filepath.Dir(name), "smaps_rollup"))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(rollup)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
				kib, _ := strconv.ParseInt(f[1], 10, 64)
				total += kib << 10
			}
		}
	}
	return total
}

func number(tb testing.TB, file string) int64 {
	tb.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}
