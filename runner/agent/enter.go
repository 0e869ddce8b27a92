package agent

import (
	"errors"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// enter finishes the sandbox from the inside: its own kernel file systems, its
// root, its name, its privileges. It runs on the thread that later starts every
// command, which inherits from that thread what is said to one thread only. The
// helper waits for its word; after an error the process ends, and with it all
// that was made.
//
// The image is hostile already: what it has at /proc or /sys is opened without
// following a link, and mounts go on what was opened.
func enter() error {
	// What whoever started the helper left open has no business in here. Nothing
	// of the runtime's is open yet.
	if err := unix.CloseRange(wire.SetupFD+1, uint(math.MaxUint32), 0); err != nil {
		return err
	}
	unix.CloseOnExec(wire.SetupFD)
	helper := os.NewFile(wire.SetupFD, "helper")
	defer drop(helper)
	var s wire.Setup
	err := receiveSetup(helper, &s)
	for _, step := range []func(*wire.Setup) error{inside, privileges, secure} {
		if err == nil {
			err = step(&s)
		}
	}
	word := wire.SetupDone
	if err != nil {
		word = err.Error()
	}
	_, _ = helper.WriteString(word) // a helper that is gone has taken the sandbox with it
	return err
}

func receiveSetup(helper io.Reader, s *wire.Setup) error {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(helper, head[:]); err != nil {
		return err
	}
	kind, size, err := wire.ParseHeader(head[:])
	if err != nil || kind != wire.KindSetup {
		return wire.ErrMalformed
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(helper, body); err != nil {
		return err
	}
	return wire.Decode(body, s)
}

// inside makes the namespaces' insides.
func inside(s *wire.Setup) error {
	// The cgroup it was started in becomes the root of what it sees of cgroups.
	if !off("cgroup namespace") {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return failed("unshare the cgroup namespace", err)
		}
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return failed("set the host name", err)
	}
	if err := loopback(); err != nil && !off("network namespace") {
		return failed("set the loopback device up", err)
	}
	own, err := newKernelFiles(s)
	if err != nil {
		return err
	}
	if err := pivot(s.Root); err != nil {
		return failed("make "+s.Root+" the root", err)
	}
	if err := own.attach(); err != nil {
		return err
	}
	if err := restrictProc(own.proc); err != nil {
		return err
	}
	if off("masked paths") {
		return nil
	}
	return mask(s.Masked)
}

func failed(what string, err error) error { return errors.New(what + ": " + err.Error()) }

// loopback sets lo up; the kernel gives it its addresses.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer dropFD(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// pivot makes the directory root the root of everything, and lets go of the old
// one (pivot_root(2), "pivot_root(., .)").
func pivot(root string) error {
	// Nothing that happens to a mount here or outside is seen on the other side.
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	// A mount that came with the namespace is locked in its place: it takes one
	// of our own to stand on.
	if err := unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// privileges leaves root of the sandbox what it may have, and nobody the way to
// more. What is said here is said to this thread alone, which starts all
// commands. The agent's other threads run nothing but the agent, under the same
// filter; to tell each of them would stop them all, and take longer than the rest.
func privileges(*wire.Setup) error {
	// One without a name: no other process can join it (keyctl(2)).
	if _, _, e := unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0); e != 0 && e != unix.ENOSYS {
		return failed("take a keyring of its own", e)
	}
	var keep uint64
	for _, n := range wire.Capabilities() {
		keep |= 1 << n
	}
	for n := range uintptr(64) {
		if keep&(1<<n) != 0 || off("capabilities") {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, n, 0, 0, 0); err == unix.EINVAL {
			break // the kernel has no more of them
		} else if err != nil {
			return failed("drop a capability", err)
		}
	}
	if !off("no_new_privs") {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return failed("set no_new_privs", err)
		}
	}
	if off("capabilities") {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: uint32(keep), Permitted: uint32(keep)}, {Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return failed("set its capabilities", err)
	}
	return nil
}
