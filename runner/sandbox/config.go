package sandbox

import (
	"math"
	"path/filepath"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"

	"slipway/runner/wire"
)

// maskedPaths are Docker's: they say things about the host.
func maskedPaths() []string {
	paths := []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	throttle, _ := filepath.Glob("/sys/devices/system/cpu/cpu*/thermal_throttle") // the pattern is right
	return append(paths, throttle...)
}

// ownPids is what the agent's threads take, beyond what the test may have.
const ownPids = 16

// cpuPeriod in microseconds, the kernel's default.
const cpuPeriod = 100_000

func resources(l wire.Limits) *cgroups.Resources {
	pids := l.Pids + ownPids
	r := &cgroups.Resources{
		Memory:    l.Memory,
		PidsLimit: &pids,
		CpuPeriod: cpuPeriod,
		CpuQuota:  int64(math.Ceil(l.CPUs * cpuPeriod)),
		Devices:   deviceRules(),
	}
	if swapAccounted() {
		r.MemorySwap = l.Memory // both together: none beyond memory
	}
	return r
}

// deviceRules: nothing but the few nodes of a minimal /dev, ptys and the tty.
func deviceRules() []*devices.Rule {
	rules := []*devices.Rule{{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "rwm", Allow: false}}
	for _, d := range [][2]int64{
		{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, // null, zero, full, random, urandom
		{5, 0}, {5, 2}, {136, devices.Wildcard}, // tty, ptmx, pts
	} {
		rules = append(rules, &devices.Rule{Type: devices.CharDevice, Major: d[0], Minor: d[1], Permissions: "rwm", Allow: true})
	}
	return rules
}

// cgroupName starts with the session, so that a reaper knows whose it was.
func cgroupName(session, id string) string { return session + "." + id }
