package runner_test

import (
	"os"
	"strconv"

	"slipway/pipeline"
)

// The defences, by the names that docs/isolation.md and the weak helper know.
const (
	seccomp    = "seccomp"
	privileges = "capabilities"
	userNS     = "user namespace"
	netNS      = "network namespace"
	ipcNS      = "ipc namespace"
	cgroupNS   = "cgroup namespace"
	noNewPrivs = "no_new_privs"
	masked     = "masked paths"
	fixedProc  = "read-only /proc"
	fixedSys   = "read-only /sys"
	deviceList = "device rules"
	noDevices  = "nodev"
	shutAgent  = "shut agent"
	coreLimit  = "core limit"
	reaping    = "reaping"
	memory     = "memory limit"
	swap       = "swap limit"
	pids       = "pids limit"
	cpu        = "cpu limit"
	disk       = "disk watch"
	tmpfsSize  = "tmpfs size"
)

func by(defences ...string) []string { return defences }

// unified reports a machine that has cgroup version 2 alone.
func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// attempts are what the suite tries against a victim. Cgroups of version 2 are
// another thing to attack than those of version 1.
func attempts(v victim, v2 bool) []attempt {
	all := append(kernelAttempts(), agentAttempts()...)
	return append(append(all, hostAttempts(v, v2)...), bombAttempts()...)
}

// kernelAttempts are system calls that a test has no business with.
func kernelAttempts() []attempt {
	return []attempt{
		{name: "`mount`", run: by("mount"), stoppedBy: by(seccomp, privileges)},
		{name: "`fsopen`, `fsmount`", run: by("mount-api"), stoppedBy: by(seccomp, privileges)},
		{name: "`open_tree` of the root", run: by("open_tree"), stoppedBy: by(seccomp, privileges)},
		{name: "`umount` what hides /proc/sys", run: by("umount"), stoppedBy: by(seccomp, privileges)},
		{name: "remount /sys", run: by("remount"), stoppedBy: by(seccomp, privileges)},
		{name: "`pivot_root`", run: by("pivot_root"), stoppedBy: by(seccomp, privileges)},
		{name: "`setns`", run: by("setns"), stoppedBy: by(seccomp, privileges)},
		{name: "a user namespace inside", run: by("user-ns"), stoppedBy: by(seccomp)},
		{name: "a mount namespace inside", run: by("mount-ns"), stoppedBy: by(seccomp, privileges)},
		{name: "a network namespace inside", run: by("net-ns"), stoppedBy: by(seccomp, privileges)},
		{name: "a time namespace inside", run: by("time-ns"), stoppedBy: by(seccomp, privileges)},
		{name: "`keyctl`", run: by("keyctl"), stoppedBy: by(seccomp)},
		{name: "`add_key`", run: by("add_key"), stoppedBy: by(seccomp)},
		{name: "`io_uring_setup`", run: by("io_uring"), stoppedBy: by(seccomp), mayLack: true},
		{name: "`bpf`", run: by("bpf"), stoppedBy: by(seccomp, privileges, userNS)},
		{name: "`perf_event_open` on the whole machine", run: by("perf"), stoppedBy: by(seccomp, privileges, userNS), mayLack: true},
		{name: "`userfaultfd`", run: by("userfaultfd"), stoppedBy: by(seccomp), mayLack: true},
		{name: "AF_VSOCK (the hypervisor)", run: by("vsock"), stoppedBy: by(seccomp), mayLack: true},
		{name: "AF_ALG (cryptography in the kernel)", run: by("alg"), stoppedBy: by(seccomp), mayLack: true},
		{name: "AF_PACKET", run: by("packet"), stoppedBy: by(privileges), mayLack: true},
		{name: "a raw IP socket", run: by("raw"), stoppedBy: by(privileges)},
		{name: "the kernel's log (`syslog`)", run: by("syslog"), stoppedBy: by(seccomp, privileges, userNS)},
		{name: "another kernel (`kexec_load`)", run: by("kexec"), stoppedBy: by(seccomp, privileges, userNS), mayLack: true},
		{name: "a kernel module (`init_module`)", run: by("module"), stoppedBy: by(seccomp, privileges, userNS), mayLack: true},
		{name: "`reboot`", run: by("reboot"), stoppedBy: by(seccomp, privileges)},
		{name: "the clock (`clock_settime`)", run: by("clock"), stoppedBy: by(seccomp, privileges, userNS)},
		{name: "`sethostname`", run: by("hostname"), stoppedBy: by(seccomp, privileges)},
		{name: "the host's root by file handle, from /out", run: by("handle", "/out"), stoppedBy: by(seccomp, privileges, userNS)},
		{name: "a set-user-id program of the image", run: by("set-user-id"), user: "bob", stoppedBy: by(noNewPrivs, seccomp)},
	}
}

// agentAttempts are the ways from a command to its PID 1.
func agentAttempts() []attempt {
	return []attempt{
		{name: "trace PID 1", run: by("agent-trace"), stoppedBy: by(shutAgent)},
		{name: "write PID 1's memory", run: by("agent-memory"), stoppedBy: by(shutAgent)},
		{name: "read PID 1's program", run: by("agent-program"), stoppedBy: by(shutAgent)},
		{name: "overwrite PID 1's program (CVE-2019-5736)", run: by("agent-overwrite"), stoppedBy: by(shutAgent)},
		{name: "see PID 1's open files", run: by("agent-files"), stoppedBy: by(shutAgent)},
	}
}

// hostAttempts are files, devices and sockets of the host.
func hostAttempts(v victim, v2 bool) []attempt {
	all := []attempt{
		{name: "a node of the host's disk, by `mknod`", run: by("mknod", strconv.FormatUint(v.disk, 10)), stoppedBy: by(privileges, userNS, deviceList, noDevices)},
		{name: "a node of the host's disk, in the image", run: by("read", "/srv/disk"), stoppedBy: by(deviceList, noDevices)},
		{name: "/proc/sys/kernel/core_pattern", run: by("rewrite", "/proc/sys/kernel/core_pattern"), stoppedBy: by(userNS, fixedProc)},
		{name: "sysctls of its own network", run: by("rewrite", "/proc/sys/net/ipv4/ip_forward"), stoppedBy: by(privileges, fixedProc)},
		{name: "/proc/sysrq-trigger", run: by("open-for-writing", "/proc/sysrq-trigger"), stoppedBy: by(userNS, fixedProc), mayLack: true},
		{name: "/sys/kernel/uevent_helper", run: by("open-for-writing", "/sys/kernel/uevent_helper"), stoppedBy: by(userNS, fixedSys), mayLack: true},
		{name: "/proc/kcore", run: by("read", "/proc/kcore"), stoppedBy: by(masked, privileges, userNS), mayLack: true},
		{name: "/proc/keys", run: by("read", "/proc/keys"), stoppedBy: by(masked), mayLack: true},
		{name: "/proc/timer_list", run: by("read", "/proc/timer_list"), stoppedBy: by(masked, userNS), mayLack: true},
		{name: "/proc/interrupts", run: by("read", "/proc/interrupts"), stoppedBy: by(masked)},
		{name: "/sys/firmware", run: by("list", "/sys/firmware"), stoppedBy: by(masked), mayLack: true},
		{name: "a service on the host's loopback", run: by("tcp", v.loopback), stoppedBy: by(netNS)},
		{name: "cloud metadata (169.254.169.254)", run: by("tcp", v.metadata), stoppedBy: by(netNS)},
		{name: "an abstract unix socket of the host", run: by("unix", v.abstract), stoppedBy: by(netNS)},
		{name: "shared memory of the host", run: by("shared-memory", strconv.Itoa(v.shm)), stoppedBy: by(ipcNS)},
	}
	limits := attempt{name: "its own limits, in the cgroup's files", run: by("cgroup")}
	if v2 { // which is mounted inside, read-only
		limits.stoppedBy = by(userNS, fixedSys)
		return append(all, limits)
	}
	limits.stoppedBy = by(seccomp, privileges, userNS)
	return append(all, limits, attempt{name: "`release_agent`", run: by("release_agent"), stoppedBy: by(seccomp, privileges, userNS, cgroupNS)})
}

// bombAttempts take more than they may.
func bombAttempts() []attempt {
	small := pipeline.Resources{Memory: 64 << 20, Pids: 64, CPUs: 1, Disk: 32 << 20}
	slow := small
	slow.CPUs = 0.05
	tiny := small
	tiny.Memory = 24 << 20
	roomy := small // for the kernel's own memory of so many files
	roomy.Memory = 256 << 20
	return []attempt{
		{name: "fork bomb", run: by("forks", "200"), limits: small, stoppedBy: by(pids)},
		{name: "zombies left to PID 1", run: by("ghosts", "100"), limits: small, stoppedBy: by(reaping)},
		{name: "memory bomb", run: by("memory", "200"), limits: small, stoppedBy: by(memory)},
		{name: "memory bomb, into swap", run: by("memory", "200"), limits: small, stoppedBy: by(swap), mayLack: true},
		{name: "tmpfs bomb in /dev/shm", run: by("shm", "100"), limits: small, stoppedBy: by(tmpfsSize, memory)},
		{name: "sockets without end", run: by("sockets", "9000"), limits: tiny, stoppedBy: by(memory)},
		{name: "disk bomb", run: by("disk", "100"), limits: small, stoppedBy: by(disk)},
		{name: "disk bomb in /out", run: by("out", "100"), limits: small, stoppedBy: by(disk)},
		{name: "inode bomb", run: by("files", "40000"), limits: roomy, stoppedBy: by(disk)},
		{name: "processor hog", run: by("cpu", "600"), limits: slow, stoppedBy: by(cpu)},
		{name: "core dumps", run: by("core"), stoppedBy: by(coreLimit)},
	}
}
