package sandbox

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"slipway/runner/wire"
)

// measure reads the counters of a sandbox. What this kernel does not keep is 0.
func (b *box) measure() *wire.Counters {
	c := &wire.Counters{}
	if v2, ok := b.group.paths[""]; ok && len(b.group.paths) == 1 {
		c.OOMKills = keyed(v2, "memory.events", "oom_kill")
		c.PeakMemory = int64(single(v2, "memory.peak"))
		c.CPU = int64(keyed(v2, "cpu.stat", "usage_usec")) * int64(time.Microsecond)
		c.PidsDenied = keyed(v2, "pids.events", "max")
	} else {
		c.OOMKills = keyed(b.group.paths["memory"], "memory.oom_control", "oom_kill")
		c.PeakMemory = int64(single(b.group.paths["memory"], "memory.max_usage_in_bytes"))
		c.CPU = int64(single(b.group.paths["cpuacct"], "cpuacct.usage"))
		c.PidsDenied = keyed(b.group.paths["pids"], "pids.events", "max")
	}
	if w := b.diskWord.Load(); w != nil {
		c.Disk = *w
	}
	return c
}

// single reads a file that holds one number.
func single(dir, file string) uint64 {
	if dir == "" {
		return 0
	}
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	return n
}

// keyed reads one number of a file of "key number" lines.
func keyed(dir, file, key string) uint64 {
	if dir == "" {
		return 0
	}
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			n, _ := strconv.ParseUint(v, 10, 64)
			return n
		}
	}
	return 0
}
