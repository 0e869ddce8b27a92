package runner_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/runner"
)

// holding is what a process has of the kernel's.
type holding struct {
	files, threads, mounts, cgroups, links, loops, directories int
	memory                                                     int64 // bytes that are resident
}

// TestSandboxesInARow: a thousand of them (thirty without SLIPWAY_SOAK), some
// beside a service, two at a time. What the runner and its helper hold after the
// first ones they hold after the last.
func TestSandboxesInARow(t *testing.T) {
	b := open(t)
	runs := 30
	if os.Getenv("SLIPWAY_SOAK") != "" {
		runs = 1000
	}
	lent := t.TempDir()
	some := func(n int) {
		var wg sync.WaitGroup
		for half := range 2 {
			wg.Go(func() {
				for i := range n / 2 {
					edits := []func(*runner.Request){keepOut(t.TempDir()), func(q *runner.Request) {
						q.Binds = []runner.Bind{{Source: lent, Target: "/lent"}}
						q.Secrets = map[string][]byte{"token": []byte("x")}
					}}
					if (i+half)%5 == 0 {
						edits = append(edits, beside(b.service("db", answers, checked("CMD", "nc", "db", "7"))))
					}
					b.passes(`echo x > /f; echo x > /out/f; echo x > /lent/f; (setsid sleep 100 &); sleep 100 & true`, edits...)
				}
			})
		}
		wg.Wait()
	}
	some(max(10, runs/5))
	first := b.holds()
	some(runs)
	last := b.holds()
	for range 100 { // what a sandbox held goes after its run has ended; what leaks stays
		if last.files <= first.files && last.cgroups <= first.cgroups {
			break
		}
		time.Sleep(100 * time.Millisecond)
		last = b.holds()
	}
	t.Logf("after %d: %+v; after %d more: %+v", max(10, runs/5), first, runs, last)
	for name, n := range map[string][2]int{
		"open files": {first.files, last.files}, "mounts": {first.mounts, last.mounts}, "cgroups": {first.cgroups, last.cgroups},
		"network links of the host": {first.links, last.links}, "loop devices": {first.loops, last.loops}, "directories": {first.directories, last.directories},
	} {
		if n[1] > n[0] {
			t.Errorf("%s: %d, then %d", name, n[0], n[1])
		}
	}
	if last.threads > first.threads+8 { // the Go runtime keeps those that once blocked
		t.Errorf("threads: %d, then %d", first.threads, last.threads)
	}
	if grown := last.memory - first.memory; grown > 32<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	b.clean()
}

// holds adds up what this process and its helper have, once all removals are done.
func (b *bench) holds() holding {
	b.Helper()
	helper := strconv.Itoa(b.helperPID())
	runtime.GC()
	h := holding{files: openFiles("self") + openFiles(helper)}
	for _, pid := range []string{"self", helper} {
		h.threads += count("/proc/" + pid + "/task/*")
		h.memory += resident(pid)
	}
	mounts, err := os.ReadFile("/proc/" + helper + "/mountinfo")
	if err != nil {
		b.Fatal(err)
	}
	h.mounts = strings.Count(string(mounts), "/run/slipway-sandbox")
	h.cgroups = count("/sys/fs/cgroup/*"+b.opts.Cgroup+"/*.*/cgroup.procs") + count("/sys/fs/cgroup"+b.opts.Cgroup+"/*.*/cgroup.procs")
	h.links = count("/sys/class/net/veth*")
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range backing {
		if name, _ := os.ReadFile(f); strings.HasPrefix(string(name), filepath.Dir(b.opts.Root)) {
			h.loops++
		}
	}
	h.directories = count(b.opts.Root + "/*/*")
	return h
}

func count(pattern string) int {
	found, _ := filepath.Glob(pattern) // the pattern is right
	return len(found)
}

// resident memory of a process, in bytes.
func resident(pid string) int64 {
	status, _ := os.ReadFile("/proc/" + pid + "/status")
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	var kib int64
	_, _ = fmt.Sscan(after, &kib)
	return kib << 10
}
