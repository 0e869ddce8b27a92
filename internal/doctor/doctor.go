// Package doctor finds out whether this machine can run slipway, and says for
// each thing that is missing how to get it (`slipway doctor`).
//
// It tries things rather than compare versions: a mount is mounted, a namespace
// made, a cgroup created. Everything happens in namespaces of a thread that is
// thrown away, or in a temporary directory, and is gone when Check returns.
//
// It refuses to repair: it changes no setting, loads no module, makes no root
// directory and starts nothing but `slipway-runc --version`.
package doctor

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// State is how bad a finding is.
type State string

// With OK nothing is to do; Warn limits or slows; with Fail runs cannot work.
const (
	OK   State = "ok"
	Warn State = "warn"
	Fail State = "fail"
)

// Finding is one thing looked at.
type Finding struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // a command or setting; empty when State is OK
}

// Input is what to look at. An empty path of a program means that it was not found.
type Input struct {
	Root    string // slipway's root; it need not exist
	UID     int    // effective user id
	Proc    string // "/proc"
	Sys     string // "/sys"
	Runc    string // slipway-runc, which runs build steps
	Sandbox string // slipway-sandbox, which runs tests
	Agent   string // slipway-agent, PID 1 of a sandbox
	Git     string
}

// Check looks at everything and returns the findings in the order to print
// them. A probe that cannot be made without another thing says so instead of
// failing a second time for the same cause.
func Check(ctx context.Context, in Input) []Finding {
	all := []Finding{checkUser(in), checkKernel(in)}
	all = append(all, checkCapabilities(in)...)
	ns, userns := checkUserNS(in)
	if userns != nil {
		defer drop(userns)
	}
	all = append(all, ns, checkNetNS(), checkTun(), checkSeccomp())
	all = append(all, checkCgroups(in)...)
	all = append(all, checkRoot(in, userns)...)
	all = append(all, checkPrograms(ctx, in)...)
	all = append(all, checkLimits(in)...)
	return append(all, checkBinfmt(in))
}

// Worst is the worst state of all findings.
func Worst(all []Finding) State {
	worst := OK
	for _, f := range all {
		if f.State == Fail || f.State == Warn && worst == OK {
			worst = f.State
		}
	}
	return worst
}

func ok(name, detail string) Finding { return Finding{Name: name, State: OK, Detail: detail} }

func warn(name, detail, fix string) Finding {
	return Finding{Name: name, State: Warn, Detail: detail, Fix: fix}
}

func fail(name, detail, fix string) Finding {
	return Finding{Name: name, State: Fail, Detail: detail, Fix: fix}
}

// drop closes what nothing was written to.
func drop(f *os.File) { _ = f.Close() }

// dropFD is drop for a bare descriptor of a probe.
func dropFD(fd int) { _ = unix.Close(fd) }

// proc names a file below Input.Proc.
func (in Input) proc(name string) string { return filepath.Join(in.Proc, name) }

// under moves a path that the kernel reports below /sys to Input.Sys.
func (in Input) under(path string) string {
	if rest, ok := strings.CutPrefix(path, "/sys/"); ok {
		return filepath.Join(in.Sys, rest)
	}
	return path
}

// inThread runs f on a thread of its own that ends with it, so that namespaces
// the thread enters vanish. f starts no goroutines.
func inThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		done <- f()
	}()
	return <-done
}
