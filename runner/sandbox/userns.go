package sandbox

import (
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// Ids: 65536 for each sandbox that runs at the same time, from 2^30 on, which
// no distribution hands out. A root has 256 of them, at a place of its own.
const (
	firstID   = 1 << 30
	perSlot   = 1 << 16
	perRoot   = 256
	rootsHeld = 64
)

// slot is a range of ids with its user namespace. The namespace belongs to the
// range's first id, not to root: what the kernel counts per owner (inotify
// watches, namespaces, keys) is then one sandbox's own, and none can use up
// root's.
type slot struct {
	first int
	ns    *os.File
	dir   string // made ahead for the next sandbox; empty: not yet
}

// slots hands out ranges, and makes namespaces when they are first needed.
type slots struct {
	base  int
	agent *os.File
	taken map[int]bool // ranges of sandboxes that another helper keeps

	mu   sync.Mutex
	free []*slot
	made int
}

func newSlots(cgroup string, agent *os.File, taken map[int]bool) *slots {
	root := int(crc32.ChecksumIEEE([]byte(cgroup)) % rootsHeld)
	return &slots{base: firstID + root*perRoot*perSlot, agent: agent, taken: taken}
}

// take gives a range that no other sandbox has.
func (s *slots) take() (*slot, error) {
	s.mu.Lock()
	if n := len(s.free); n > 0 {
		got := s.free[n-1]
		s.free = s.free[:n-1]
		s.mu.Unlock()
		return got, nil
	}
	for s.taken[s.made] {
		s.made++
	}
	if s.made >= perRoot {
		s.mu.Unlock()
		return nil, fmt.Errorf("%d sandboxes run already, which is as many as one root may have; run fewer at a time", perRoot)
	}
	got := &slot{first: s.base + s.made*perSlot}
	s.made++
	s.mu.Unlock()
	var err error
	if got.ns, err = newUserNS(got.first, s.agent); err != nil {
		return nil, err // the range stays unused: whatever is wrong will not be better for it
	}
	return got, nil
}

func (s *slots) put(x *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, x)
}

func (s *slots) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.free {
		drop(x.ns)
	}
	s.free = nil
}

// newUserNS makes a user namespace that maps 0…65535 to first… and belongs to
// first. A namespace belongs to the effective id of the thread that clones it
// (user_namespaces(7)), so a thread takes that id, clones, and is thrown away.
func newUserNS(first int, holder *os.File) (*os.File, error) {
	type made struct {
		ns  *os.File
		err error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its changed credentials
		ns, err := cloneUserNS(first, holder)
		done <- made{ns, err}
	}()
	m := <-done
	if m.err != nil {
		return nil, fmt.Errorf("make a user namespace: %w; see `slipway doctor`", m.err)
	}
	return m.ns, nil
}

func cloneUserNS(first int, holder *os.File) (*os.File, error) {
	if err := becomeOwner(first); err != nil {
		return nil, err
	}
	m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: perSlot}}
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", holder.Fd()), wire.HoldArg)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: m, GidMappings: m, GidMappingsEnableSetgroups: true,
	}
	stay, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	drop(stay)
	if werr := cmd.Wait(); err == nil {
		err = werr
	}
	if err != nil && ns != nil {
		drop(ns)
		return nil, err
	}
	return ns, err
}

// becomeOwner changes this thread's effective ids and takes the capabilities
// back that the kernel drops at such a change (capabilities(7)): writing the
// maps needs them.
func becomeOwner(id int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	keep := ^uintptr(0) // -1: unchanged
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, keep, uintptr(id), keep); e != 0 {
		return fmt.Errorf("setresgid: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(id), keep); e != 0 {
		return fmt.Errorf("setresuid: %w", e)
	}
	for i := range have {
		have[i].Effective = have[i].Permitted
	}
	if err := unix.Capset(&header, &have[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
