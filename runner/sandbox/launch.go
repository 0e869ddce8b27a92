package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// launch starts the agent as the first process of new namespaces, in the
// sandbox's cgroup from its first instruction on, and waits until it has made
// itself at home there. See docs/adr/0010 for why no runtime does it.
func (h *helper) launch(b *box, s *wire.Sandbox, agent *os.File) error {
	ours, theirs, err := socketpair()
	if err != nil {
		return err
	}
	defer drop(ours)
	b.process, err = h.start(b, agent, h.filters.of(s), theirs)
	drop(theirs)
	if err != nil {
		return fmt.Errorf("start its first process: %w; see `slipway doctor`", err)
	}
	b.ended = make(chan struct{})
	go func() {
		defer close(b.ended)
		_, _ = b.process.Wait() // how PID 1 ended says nothing: the agent's record does
	}()
	setup := wire.Encode(&wire.Setup{Root: b.target, Hostname: s.Hostname, Masked: h.masked, Unified: cgroups.IsCgroup2UnifiedMode()})
	if _, err := ours.Write(setup); err != nil {
		return fmt.Errorf("tell its first process what to do: %w", err)
	}
	switch word, err := io.ReadAll(ours); {
	case err != nil:
		return err
	case len(word) == 0:
		return errors.New("its first process ended at once")
	case string(word) != wire.SetupDone:
		return errors.New(string(word))
	}
	return nil
}

func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs"), nil
}

// start clones the agent from a thread that is thrown away: it has moved to the
// sandbox's cgroup and become the owner of its ids.
func (h *helper) start(b *box, agent, filter, setup *os.File) (*os.Process, error) {
	type started struct {
		process *os.Process
		err     error
	}
	done := make(chan started)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with what it has become
		p, err := h.startHere(b, agent, filter, setup)
		done <- started{p, err}
	}()
	s := <-done
	return s.process, s.err
}

func (h *helper) startHere(b *box, agent, filter, setup *os.File) (*os.Process, error) {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: b.slot.first, Size: perSlot}}
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
		// Its cgroup namespace is made later, in the cgroup.
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{}, // root of the new namespace
		Setsid:     true,
	}
	if unified, ok := b.group.paths[""]; ok {
		dir, err := os.OpenFile(unified, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		defer drop(dir)
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	} else if err := b.group.join(); err != nil {
		return nil, fmt.Errorf("join its cgroup: %w", err)
	}
	if err := becomeOwner(b.slot.first); err != nil {
		return nil, err
	}
	argv := []string{"slipway-agent"}
	start := &os.ProcAttr{
		Dir: "/",
		Env: []string{"GOMAXPROCS=1", "HOME=/"}, // for the agent itself: each thread takes time to start, and its child gets its own environment
		// Their places are wire.AgentFD, wire.ExeFD, wire.FilterFD and wire.SetupFD.
		Files: []*os.File{h.null, h.null, h.null, agent, h.agent, filter, setup},
		Sys:   attr,
	}
	if err := h.weakenProcess(start, &argv); err != nil {
		return nil, err
	}
	return os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", wire.ExeFD), argv, start)
}
