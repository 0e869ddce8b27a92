package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hierarchy is one mounted cgroup tree.
type hierarchy struct {
	at          string
	controllers []string // of version 1
	unified     bool
}

// hierarchies reads them from mountinfo (proc_pid_mountinfo(5)).
func hierarchies(mountinfo string) (all []hierarchy) {
	for line := range strings.Lines(mountinfo) {
		before, after, found := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !found || len(left) < 5 || len(right) < 3 {
			continue
		}
		switch right[0] {
		case "cgroup2":
			all = append(all, hierarchy{at: left[4], unified: true})
		case "cgroup":
			all = append(all, hierarchy{at: left[4], controllers: strings.Split(right[2], ",")})
		}
	}
	return all
}

const noCgroups = "mount -t cgroup2 none /sys/fs/cgroup"

func checkCgroups(in Input) []Finding {
	const name = "cgroups"
	b, err := os.ReadFile(in.proc("self/mountinfo"))
	if err != nil {
		return []Finding{fail(name, err.Error(), "mount -t proc proc /proc")}
	}
	all := hierarchies(string(b))
	main := slices.IndexFunc(all, func(h hierarchy) bool { return h.unified && h.at == "/sys/fs/cgroup" })
	switch {
	case len(all) == 0:
		return []Finding{fail(name, "none are mounted", noCgroups)}
	case main >= 0:
		return append([]Finding{checkV2(in, all[main])}, checkDevicesV2(), checkDelegation(in, all[main].at))
	}
	return []Finding{checkV1(in, all)}
}

// checkV1 looks for the controllers of version 1, each in whatever tree it is.
func checkV1(in Input, all []hierarchy) Finding {
	const name = "cgroups"
	var missing, locked []string
	unified := slices.ContainsFunc(all, func(h hierarchy) bool { return h.unified })
	for _, c := range []string{"memory", "cpu", "cpuacct", "pids", "devices"} {
		i := slices.IndexFunc(all, func(h hierarchy) bool { return slices.Contains(h.controllers, c) })
		if i < 0 {
			missing = append(missing, c)
		} else if err := tryCgroup(in.under(all[i].at)); err != nil {
			locked = append(locked, fmt.Sprintf("%s (%v)", c, err))
		}
	}
	kind := "version 1"
	if unified {
		kind = "version 1, hybrid"
	}
	switch {
	case len(missing) > 0:
		return fail(name, kind+" without "+strings.Join(missing, ", "), bootFix(missing))
	case len(locked) > 0:
		return fail(name, kind+", not writable: "+strings.Join(locked, ", "), "run as root; inside a container, start that with --privileged, so that /sys/fs/cgroup is writable")
	}
	return ok(name, kind+" with memory, cpu, pids and devices")
}

func bootFix(missing []string) string {
	fix := "boot with systemd.unified_cgroup_hierarchy=1"
	if slices.Contains(missing, "memory") {
		fix += " cgroup_enable=memory swapaccount=1"
	}
	return fix + " on the kernel's command line"
}

// tryCgroup makes a group and removes it.
func tryCgroup(parent string) error {
	dir, err := os.MkdirTemp(parent, "slipway-doctor-*")
	if err != nil {
		return err
	}
	return unix.Rmdir(dir)
}

// checkV2 looks whether a child of the root group would get the controllers. It
// enables none: that would stay behind.
func checkV2(in Input, h hierarchy) Finding {
	const name = "cgroups"
	at := in.under(h.at)
	b, err := os.ReadFile(filepath.Join(at, "cgroup.controllers"))
	if err != nil {
		return fail(name, err.Error(), noCgroups)
	}
	have := strings.Fields(string(b))
	var missing []string
	for _, c := range []string{"memory", "cpu", "pids"} {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return fail(name, "version 2 without "+strings.Join(missing, ", "), "boot with cgroup_enable=memory on the kernel's command line; inside a container or service, have its parent delegate them")
	}
	if err := tryCgroup(at); err != nil {
		return fail(name, "version 2, not writable: "+err.Error(), "run as root; inside a container, start that with --privileged, so that /sys/fs/cgroup is writable")
	}
	if f := enabled(at); f != nil {
		return *f
	}
	return ok(name, "version 2 with memory, cpu and pids")
}

// enabled finds out whether children of at get the controllers, or could. A
// group other than the real root that holds processes gives none to children
// (cgroups(7), "no internal processes").
func enabled(at string) *Finding {
	b, err := os.ReadFile(filepath.Join(at, "cgroup.subtree_control"))
	on := strings.Fields(string(b))
	if err == nil && slices.Contains(on, "memory") && slices.Contains(on, "cpu") && slices.Contains(on, "pids") {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(at, "cgroup.subtree_control"), os.O_WRONLY, 0)
	if err != nil {
		x := fail("cgroups", "version 2, controllers cannot be enabled: "+err.Error(), "inside a container, start that with --privileged")
		return &x
	}
	drop(f)
	_, err = os.Stat(filepath.Join(at, "cgroup.type")) // the real root has none
	procs, _ := os.ReadFile(filepath.Join(at, "cgroup.procs"))
	if err == nil && len(procs) > 0 {
		x := fail("cgroups", "version 2, controllers cannot be enabled: "+at+" is not the real root and holds processes",
			"inside a container, start slipway below a leaf group: mkdir /sys/fs/cgroup/init && xargs -rn1 </sys/fs/cgroup/cgroup.procs >/sys/fs/cgroup/init/cgroup.procs")
		return &x
	}
	return nil
}

// checkDevicesV2 loads a filter for device nodes, as version 2 needs (BPF_PROG_TYPE_CGROUP_DEVICE).
func checkDevicesV2() Finding {
	const name = "device filter"
	if err := loadDeviceFilter(); err != nil {
		return fail(name, "bpf: "+err.Error(), "use a kernel with CONFIG_CGROUP_BPF; inside a container, start that with --privileged")
	}
	return ok(name, "loaded one")
}

// loadDeviceFilter loads "allow all" and lets go of it, attached to nothing.
func loadDeviceFilter() error {
	program := []uint64{0x00000001_000000b7, 0x00000000_00000095} // r0 = 1; exit
	license := []byte("Apache-2.0\x00")
	attr := struct { // union bpf_attr for BPF_PROG_LOAD, its oldest part
		kind, count           uint32
		instructions, license uint64
		logLevel, logSize     uint32
		log                   uint64
		kernelVersion, flags  uint32
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(program)),
		instructions: uint64(uintptr(unsafe.Pointer(&program[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	var pin runtime.Pinner // the kernel is given addresses
	defer pin.Unpin()
	pin.Pin(&program[0])
	pin.Pin(&license[0])
	fd, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if e != 0 {
		return e
	}
	return unix.Close(int(fd))
}

// checkDelegation warns where systemd owns slipway's own group and may clean up
// under it (systemd's CGROUP_DELEGATION document; the mark is an xattr).
func checkDelegation(in Input, at string) Finding {
	const name = "cgroup delegation"
	b, _ := os.ReadFile(in.proc("self/cgroup"))
	own := field(string(b), "0::")
	comm, _ := os.ReadFile(in.proc("1/comm"))
	if strings.TrimSpace(string(comm)) != "systemd" || !strings.Contains(own, ".service") {
		return ok(name, "not a systemd service; nothing to delegate")
	}
	service := own[:strings.Index(own, ".service")+len(".service")]
	mark := make([]byte, 8)
	for _, attr := range []string{"trusted.delegate", "user.delegate"} {
		if n, err := unix.Getxattr(filepath.Join(in.under(at), service), attr, mark); err == nil && string(mark[:n]) == "1" {
			return ok(name, service+" is delegated")
		}
	}
	unit := filepath.Base(service)
	return warn(name, "systemd has not delegated "+service+" and may move or remove groups in it", "systemctl edit "+unit+", add [Service] Delegate=yes, systemctl restart "+unit)
}

// Cgroups says what is missing of the cgroups that sandboxes and build steps
// need; empty when nothing is. It only looks, and quickly: Check tries them.
func Cgroups(in Input) string {
	b, err := os.ReadFile(in.proc("self/mountinfo"))
	if err != nil {
		return err.Error()
	}
	have := map[string]bool{}
	for _, h := range hierarchies(string(b)) {
		if _, err := os.Stat(filepath.Join(in.under(h.at), "cgroup.procs")); err != nil {
			continue // another file system lies over it
		}
		for _, c := range h.controllers {
			have[c] = true
		}
		if names, err := os.ReadFile(filepath.Join(in.under(h.at), "cgroup.controllers")); err == nil {
			for _, c := range strings.Fields(string(names)) {
				have[c] = true
			}
		}
	}
	var missing []string
	for _, c := range []string{"memory", "cpu", "pids"} {
		if !have[c] {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "no cgroup controller " + strings.Join(missing, ", ") + " is mounted"
}
