package sandbox

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
)

// warmer hides the slowest step of a creation. The first process to join any
// cgroup after a pause waits for the kernel to pass through a grace period (10
// to 14 ms: cgroup_threadgroup_rwsem, see favordynmods in cgroups(7)); for a
// few milliseconds after that, joining is quick. So this process joins the
// cgroup it is in already, which changes nothing, while a sandbox's files and
// mounts are still being made.
type warmer struct {
	procs string // cgroup.procs of our own cgroup; empty where it is not to be seen
	asked chan struct{}
	done  chan struct{}
}

func newWarmer() *warmer {
	w := &warmer{procs: ownProcs(), asked: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for range w.asked {
			if w.procs != "" {
				_ = os.WriteFile(w.procs, []byte("0"), 0) // refused or not, the wait is over
			}
		}
	}()
	return w
}

// poke starts a warming unless one is waiting to start.
func (w *warmer) poke() {
	select {
	case w.asked <- struct{}{}:
	default:
	}
}

func (w *warmer) close() {
	close(w.asked)
	<-w.done
}

// ownProcs finds the membership file of a cgroup we are in.
func ownProcs() string {
	in, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for controller, path := range in {
		h := filepath.Join(cgroupRoot, strings.TrimPrefix(controller, "name="))
		if controller == "" && !cgroups.IsCgroup2UnifiedMode() {
			h = filepath.Join(cgroupRoot, "unified")
		}
		procs := filepath.Join(h, path, "cgroup.procs")
		if _, err := os.Stat(procs); err == nil {
			return procs
		}
	}
	return ""
}
