package sandbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // device rules for both versions
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchies are the mounted cgroup trees: one with version 2; with version 1
// one per controller, and in its hybrid form the unified one beside them.
func hierarchies() []string {
	if cgroups.IsCgroup2UnifiedMode() {
		return []string{cgroupRoot}
	}
	var found []string
	dirs, _ := os.ReadDir(cgroupRoot)
	for _, d := range dirs {
		if d.IsDir() { // not the symlinks cpu → cpu,cpuacct
			found = append(found, filepath.Join(cgroupRoot, d.Name()))
		}
	}
	return found
}

// controllers are those of version 1 that limit or count something here. Each
// costs a directory and a move at every start; the others are left alone.
var controllers = [...]string{"memory", "cpu", "cpuacct", "pids", "devices"}

// group is the cgroup of one sandbox: a directory with version 2, with version 1
// one in each hierarchy that matters.
type group struct {
	manager cgroups.Manager
	paths   map[string]string // by controller; by "" with version 2
}

// findTrees gives the mount points of the controllers of version 1.
func findTrees() (map[string]string, error) {
	trees := map[string]string{}
	if cgroups.IsCgroup2UnifiedMode() {
		return trees, nil
	}
	for _, c := range controllers {
		at, err := cgroups.FindCgroupMountpoint("", c)
		if err == nil {
			at, err = filepath.EvalSymlinks(at) // cpu and cpuacct are often one
		}
		if err != nil {
			return nil, fmt.Errorf("the cgroup controller %s: %w; see `slipway doctor`", c, err)
		}
		trees[c] = at
	}
	return trees, nil
}

// newGroup makes a cgroup with its limits set.
func (h *helper) newGroup(id string, limits *cgroups.Resources) (*group, error) {
	name := filepath.Join(h.cfg.Cgroup, cgroupName(h.session.name, id))
	g := &group{paths: map[string]string{}}
	if cgroups.IsCgroup2UnifiedMode() {
		g.paths[""] = filepath.Join(cgroupRoot, name)
	} else {
		for controller, at := range h.trees {
			g.paths[controller] = filepath.Join(at, name)
		}
	}
	config := &cgroups.Cgroup{Path: name, Resources: limits}
	var err error
	if g.manager, err = manager.NewWithPaths(config, g.paths); err != nil {
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	if err := g.manager.Apply(-1); err != nil { // no process yet
		return g, fmt.Errorf("make a cgroup: %w", err)
	}
	if err := g.manager.Set(config.Resources); err != nil {
		return g, fmt.Errorf("set a cgroup's limits: %w", err)
	}
	return g, nil
}

// join moves the calling thread into the cgroup, version 1 only. A thread that
// moves itself alone does not wait for the kernel's grace period, as a process
// does (10 to 14 ms: cgroup_threadgroup_rwsem, see favordynmods in cgroups(7)).
func (g *group) join() error {
	for _, dir := range slices.Compact(slices.Sorted(maps.Values(g.paths))) {
		if err := os.WriteFile(filepath.Join(dir, "tasks"), []byte("0"), 0); err != nil {
			return err
		}
	}
	return nil
}

// remove takes the cgroup away; what was in it is dead.
func (g *group) remove() error { return g.manager.Destroy() }

// swapAccounted reports whether a swap limit can be set.
func swapAccounted() bool {
	if cgroups.IsCgroup2UnifiedMode() {
		return true // it is left out where the kernel has none
	}
	_, err := os.Stat(filepath.Join(cgroupRoot, "memory", "memory.memsw.limit_in_bytes"))
	return err == nil
}

// removeEmptyParents removes a cgroup and its ancestors in every hierarchy, as
// far up as they are empty.
func removeEmptyParents(cgroup string) {
	for _, h := range hierarchies() {
		for at := filepath.Clean(cgroup); at != "/" && at != "."; at = filepath.Dir(at) {
			if err := unix.Rmdir(filepath.Join(h, at)); err != nil && !errors.Is(err, unix.ENOENT) {
				break
			}
		}
	}
}

// abolish kills everything in the cgroups of one sandbox and removes them.
func abolish(cgroup string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		var left error
		for _, h := range hierarchies() {
			dir := filepath.Join(h, cgroup)
			killIn(dir)
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				left = &os.PathError{Op: "remove cgroup", Path: dir, Err: err}
			}
		}
		if left == nil || !pause(ctx, 5*time.Millisecond) {
			return left
		}
	}
}

// killIn kills the members of a cgroup. It never uses cgroup.kill: Linux 6.18
// then kills later members of the same cgroup as well.
func killIn(dir string) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(data)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
