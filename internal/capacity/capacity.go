// Package capacity says how many cores and how much memory slipway may use here:
// those of the machine, or fewer where a cgroup says so, of version 1 or 2, its
// own or one above it. It refuses to set limits; it only reads them.
package capacity

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Machine is what there is.
type Machine struct {
	CPUs   float64 // cores; a quota may leave part of one
	Memory int64   // bytes
}

// Read looks at the files below root, "/" but in tests.
//
// Sandboxes run in cgroups beside slipway's own, not below it. Its own limits
// count all the same: whoever set them meant all that slipway does.
func Read(root string) (Machine, error) {
	memory, err := total(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return Machine{}, err
	}
	m := Machine{CPUs: float64(runtime.NumCPU()), Memory: memory} // the cores this process may run on
	groups, err := groupsOf(root)
	if err != nil {
		return Machine{}, err
	}
	for _, g := range groups {
		g.limit(&m)
	}
	return m, nil
}

// total reads MemTotal (proc_meminfo(5)).
func total(path string) (int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read how much memory there is: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read how much memory there is: %s: %w", path, err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("read how much memory there is: %s has no MemTotal", path)
}

// group is a cgroup this process is in, or one above that.
type group struct {
	dir     string
	unified bool
}

// groupsOf finds them all, as far up as they can be seen.
func groupsOf(root string) ([]group, error) {
	mounts, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("find the cgroups: %w", err)
	}
	membership, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil, fmt.Errorf("find the cgroups: %w", err)
	}
	var all []group
	for line := range strings.Lines(string(mounts)) {
		h, ok := parseMount(line)
		if !ok {
			continue
		}
		top := filepath.Join(root, h.at)
		for at := filepath.Join(top, h.below(string(membership))); ; at = filepath.Dir(at) {
			all = append(all, group{at, h.unified})
			if at == top || len(at) < len(top) {
				break
			}
		}
	}
	return all, nil
}

// hierarchy is a mounted cgroup tree.
type hierarchy struct {
	top         string // cgroup that is seen at the mount point
	at          string
	controllers []string // of version 1
	unified     bool
}

// parseMount reads a line of proc_pid_mountinfo(5).
func parseMount(line string) (h hierarchy, ok bool) {
	before, after, found := strings.Cut(strings.TrimSpace(line), " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !found || len(left) < 5 || len(right) < 3 {
		return h, false
	}
	h = hierarchy{top: left[3], at: left[4], unified: right[0] == "cgroup2"}
	if right[0] == "cgroup" {
		h.controllers = strings.Split(right[2], ",")
	}
	return h, h.unified || h.controllers != nil
}

// below is this process's cgroup, relative to the mount point (cgroups(7),
// /proc/pid/cgroup); "/" where it is not below that, as in a container that sees
// only its own part of the tree.
func (h hierarchy) below(membership string) string {
	for line := range strings.Lines(membership) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		named := strings.Split(f[1], ",")
		if h.unified != (f[1] == "") || !h.unified && !slices.ContainsFunc(named, func(c string) bool { return slices.Contains(h.controllers, c) }) {
			continue
		}
		if rel, err := filepath.Rel(h.top, f[2]); err == nil && filepath.IsLocal(rel) {
			return rel
		}
	}
	return "/"
}

// limit lowers m to what the cgroup allows. A file that is not there, "max" and
// -1 are no limit.
func (g group) limit(m *Machine) {
	if g.unified {
		for _, name := range []string{"memory.max", "memory.high"} {
			lower(&m.Memory, g.read(name))
		}
		if f := strings.Fields(g.read("cpu.max")); len(f) == 2 {
			m.quota(f[0], f[1])
		}
		return
	}
	lower(&m.Memory, g.read("memory.limit_in_bytes"))
	m.quota(g.read("cpu.cfs_quota_us"), g.read("cpu.cfs_period_us"))
}

func (g group) read(name string) string {
	data, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func lower(have *int64, limit string) {
	if n, err := strconv.ParseInt(limit, 10, 64); err == nil && n > 0 {
		*have = min(*have, n)
	}
}

// quota: so many microseconds of processor in each period.
func (m *Machine) quota(quota, period string) {
	q, qerr := strconv.ParseFloat(quota, 64)
	p, perr := strconv.ParseFloat(period, 64)
	if qerr == nil && perr == nil && q > 0 && p > 0 {
		m.CPUs = min(m.CPUs, q/p)
	}
}
