//go:build seccomp

package sandbox

import (
	"fmt"
	"os"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// compile turns a profile into the BPF program that the kernel takes
// (seccomp(2)). A runtime would do it again for every sandbox, from inside;
// done once here it is a tenth of a sandbox's start less. The agent installs it.
func compile(profile *specs.LinuxSeccomp) ([]byte, error) {
	byDefault, err := action(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	filter, err := libseccomp.NewFilter(byDefault) // for the native architecture; a call of any other kills
	if err != nil {
		return nil, err
	}
	defer filter.Release()
	if err := filter.SetOptimize(2); err != nil { // a binary tree: libseccomp 2.5
		return nil, err
	}
	var last libseccomp.ScmpSyscall
	for _, rule := range profile.Syscalls {
		act, err := action(rule.Action, rule.ErrnoRet)
		if err != nil {
			return nil, err
		}
		for _, name := range rule.Names {
			call, err := libseccomp.GetSyscallFromName(name)
			if err != nil {
				continue // not known to this libseccomp, or not of this architecture
			}
			last = max(last, call)
			if act == byDefault {
				continue
			}
			if err := addRule(filter, call, act, rule.Args); err != nil {
				return nil, fmt.Errorf("rule for %s: %w", name, err)
			}
		}
	}
	program, err := export(filter)
	if err != nil {
		return nil, err
	}
	before, err := unknownCalls(uint32(last))
	if err != nil {
		return nil, err
	}
	return append(before, program...), nil
}

// addRule adds a condition on arguments. Several on one argument are
// alternatives, as runc and Docker have it: libseccomp refuses them together.
func addRule(filter *libseccomp.ScmpFilter, call libseccomp.ScmpSyscall, act libseccomp.ScmpAction, args []specs.LinuxSeccompArg) error {
	if len(args) == 0 {
		return filter.AddRule(call, act)
	}
	var conditions []libseccomp.ScmpCondition
	used := map[uint]bool{}
	alternatives := false
	for _, a := range args {
		op, ok := operators()[a.Op]
		if !ok {
			return fmt.Errorf("unknown comparison %s", a.Op)
		}
		c, err := libseccomp.MakeCondition(a.Index, op, a.Value, a.ValueTwo)
		if err != nil {
			return err
		}
		conditions = append(conditions, c)
		alternatives = alternatives || used[a.Index]
		used[a.Index] = true
	}
	if !alternatives {
		return filter.AddRuleConditional(call, act, conditions)
	}
	for _, c := range conditions {
		if err := filter.AddRuleConditional(call, act, []libseccomp.ScmpCondition{c}); err != nil {
			return err
		}
	}
	return nil
}

func operators() map[specs.LinuxSeccompOperator]libseccomp.ScmpCompareOp {
	return map[specs.LinuxSeccompOperator]libseccomp.ScmpCompareOp{
		specs.OpNotEqual: libseccomp.CompareNotEqual, specs.OpLessThan: libseccomp.CompareLess,
		specs.OpLessEqual: libseccomp.CompareLessOrEqual, specs.OpEqualTo: libseccomp.CompareEqual,
		specs.OpGreaterEqual: libseccomp.CompareGreaterEqual, specs.OpGreaterThan: libseccomp.CompareGreater,
		specs.OpMaskedEqual: libseccomp.CompareMaskedEqual,
	}
}

// action knows the two that Docker's profile has. Another one is an error, never
// a guess.
func action(a specs.LinuxSeccompAction, errno *uint) (libseccomp.ScmpAction, error) {
	switch a {
	case specs.ActAllow:
		return libseccomp.ActAllow, nil
	case specs.ActErrno:
		code := uint(unix.EPERM)
		if errno != nil {
			code = *errno
		}
		return libseccomp.ActErrno.SetReturnCode(int16(code)), nil
	}
	return libseccomp.ActInvalid, fmt.Errorf("the profile has the action %s, which nothing here can compile", a)
}

func export(filter *libseccomp.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "filter")
	defer drop(f)
	if err := filter.ExportBPF(f); err != nil {
		return nil, err
	}
	return os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// unknownCalls is a piece of program that goes before the filter: calls younger
// than the profile fail with ENOSYS, for which every C library has an older
// call to fall back on, and not with EPERM, for which none has (runc's
// libcontainer/seccomp/patchbpf has the whole story).
func unknownCalls(last uint32) ([]byte, error) {
	if auditArch() == 0 {
		return nil, fmt.Errorf("sandboxes are not built for %s yet; they are for amd64 and arm64", runtime.GOARCH)
	}
	const x32 = 1 << 30 // on amd64 this bit of a call's number marks another ABI, which the filter itself refuses
	return assemble([]unix.SockFilter{
		{Code: bpfLoad, K: 4},                          // struct seccomp_data: arch
		{Code: bpfEqual, K: auditArch(), Jt: 0, Jf: 4}, // another architecture: the filter's matter
		{Code: bpfLoad, K: 0},                          // the call's number
		{Code: bpfSet, K: x32, Jt: 2, Jf: 0},
		{Code: bpfAbove, K: last, Jt: 0, Jf: 1},
		{Code: bpfGive, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
	}), nil
}
