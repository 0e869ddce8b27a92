package sandbox

import (
	"math"
	"path/filepath"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// config is the isolation of a sandbox in libcontainer's words, but for the
// seccomp filter, which the agent installs before it listens to anyone.
func (h *helper) config(b *box, s *wire.Sandbox) *configs.Config {
	ids := []configs.IDMap{{ContainerID: 0, HostID: int64(b.slot.first), Size: perSlot}}
	caps := capabilities()
	return &configs.Config{
		Rootfs:          b.target,
		RootPropagation: unix.MS_SLAVE | unix.MS_REC,
		Hostname:        s.Hostname,
		Namespaces: configs.Namespaces{
			{Type: configs.NEWUSER, Path: b.slot.path()},
			{Type: configs.NEWNS},
			{Type: configs.NEWPID},
			{Type: configs.NEWIPC},
			{Type: configs.NEWUTS},
			{Type: configs.NEWNET},
			{Type: configs.NEWCGROUP},
		},
		UIDMappings:     ids,
		GIDMappings:     ids,
		Capabilities:    &configs.Capabilities{Bounding: caps, Effective: caps, Permitted: caps},
		NoNewPrivileges: true,
		Mounts:          mounts(b.target),
		MaskPaths:       h.masked,
		ReadonlyPaths:   []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		Networks:        []*configs.Network{{Type: "loopback", Address: "127.0.0.1/0", Gateway: "localhost"}},
		// As Docker: in its own network a service may listen on port 80 whoever it runs as.
		Sysctl:  map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
		Cgroups: h.cgroup(b.id, s.Limits),
	}
}

const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mounts that only the inside can make: they show the sandbox's own namespaces.
// The rest is placed already.
func mounts(root string) []*configs.Mount {
	m := []*configs.Mount{
		{Source: "proc", Device: "proc", Destination: "/proc", Flags: quiet},
		// What is there already, once more: so libcontainer leaves /dev to us.
		{Source: filepath.Join(root, "dev"), Device: "bind", Destination: "/dev", Flags: unix.MS_BIND | unix.MS_REC},
		{Source: "devpts", Device: "devpts", Destination: "/dev/pts", Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Data: "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{Source: "mqueue", Device: "mqueue", Destination: "/dev/mqueue", Flags: quiet},
		{Source: "sysfs", Device: "sysfs", Destination: "/sys", Flags: quiet | unix.MS_RDONLY},
	}
	if cgroups.IsCgroup2UnifiedMode() {
		// Runtimes size their heaps and thread pools by what they read here. The
		// ten mounts it takes with version 1 would cost more than all the others.
		m = append(m, &configs.Mount{Source: "cgroup", Device: "cgroup", Destination: "/sys/fs/cgroup", Flags: quiet | unix.MS_RDONLY})
	}
	return m
}

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

func (h *helper) cgroup(id string, l wire.Limits) *cgroups.Cgroup {
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
	return &cgroups.Cgroup{Path: filepath.Join(h.cfg.Cgroup, cgroupName(h.session.name, id)), Resources: r}
}

// deviceRules: nothing but the few nodes of a minimal /dev, ptys and the tty.
func deviceRules() []*devices.Rule {
	rules := []*devices.Rule{{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "rwm", Allow: false}}
	for _, d := range specconv.AllowedDevices {
		if d.Path != "" {
			rules = append(rules, &d.Rule)
		}
	}
	for _, r := range []devices.Rule{{Major: 136, Minor: devices.Wildcard}, {Major: 5, Minor: 2}} {
		r.Type, r.Permissions, r.Allow = devices.CharDevice, "rwm", true
		rules = append(rules, &r)
	}
	return rules
}

// cgroupName starts with the session, so that a reaper knows whose it was.
func cgroupName(session, id string) string { return session + "." + id }
