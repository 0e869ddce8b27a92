package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
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

// swapAccounted reports whether a swap limit can be set.
func swapAccounted() bool {
	if cgroups.IsCgroup2UnifiedMode() {
		return true // libcontainer leaves it out where the kernel has none
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
