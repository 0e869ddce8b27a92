package doctor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapped is the range of ids the probed user namespace has. Nothing runs in it.
const (
	mappedFirst = 0x60000000
	mappedSize  = 65536
)

// checkUserNS makes a user namespace and hands it on for the id-mapped mounts.
func checkUserNS(in Input) (Finding, *os.File) {
	const name = "user namespaces"
	const sysctl = "user.max_user_namespaces"
	if b, err := os.ReadFile(in.proc("sys/user/max_user_namespaces")); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n < 100 {
			return fail(name, fmt.Sprintf("%s is %d; every sandbox and build step has one", sysctl, n), "sysctl -w "+sysctl+"=15000"), nil
		}
	}
	var ns *os.File
	err := inThread(func() (err error) {
		ns, err = newUserNS()
		return err
	})
	switch {
	case err == nil:
		return ok(name, "made one with 65536 mapped ids"), ns
	case in.UID != 0:
		return warn(name, "not tried: it needs root", "sudo slipway doctor"), nil
	case errors.Is(err, unix.ENOSPC):
		return fail(name, "the kernel makes no more: "+err.Error(), "sysctl -w "+sysctl+"=15000"), nil
	}
	return fail(name, err.Error(), "use a kernel with CONFIG_USER_NS; inside a container, start that with --privileged"), nil
}

// newUserNS makes a user namespace without running anything in it: a child in
// it is stopped by ptrace at its first instruction, and killed. The calling
// thread is its tracer, and must be locked.
func newUserNS() (*os.File, error) {
	m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: mappedFirst, Size: mappedSize}}
	p, err := os.StartProcess("/proc/self/exe", []string{"slipway-doctor"}, &os.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: m, GidMappings: m, Ptrace: true, Pdeathsig: unix.SIGKILL},
	})
	if err != nil {
		return nil, err
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", p.Pid))
	kerr := p.Kill()
	_, werr := p.Wait()
	if err := errors.Join(err, kerr, werr); err != nil {
		if ns != nil {
			drop(ns)
		}
		return nil, err
	}
	return ns, nil
}

func checkNetNS() Finding {
	const name = "network namespaces"
	if err := inThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }); err != nil {
		return fail(name, err.Error(), "run as root, on a kernel with CONFIG_NET_NS; inside a container, start that with --privileged")
	}
	return ok(name, "made one")
}

// checkTun makes the device that carries a sandbox's and build step's traffic,
// in a namespace that goes with the thread.
func checkTun() Finding {
	const name, path = "network device", "/dev/net/tun"
	err := inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		defer dropFD(fd)
		req, err := unix.NewIfreq("doctor0")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	})
	switch {
	case err == nil:
		return ok(name, "made one with "+path)
	case errors.Is(err, unix.ENOENT):
		return fail(name, err.Error()+": build steps would have no network", "modprobe tun && mkdir -p /dev/net && mknod /dev/net/tun c 10 200; inside a container, start that with --device /dev/net/tun")
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fail(name, err.Error()+": build steps would have no network", "modprobe tun")
	}
	return fail(name, err.Error(), "run as root; inside a container, start that with --device /dev/net/tun --cap-add NET_ADMIN")
}

// checkSeccomp asks the kernel whether a filter may answer with an error
// (seccomp(2), SECCOMP_GET_ACTION_AVAIL).
func checkSeccomp() Finding {
	const name = "seccomp"
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if e != 0 {
		return fail(name, "filters are not available: "+e.Error(), "use a kernel with CONFIG_SECCOMP_FILTER")
	}
	return ok(name, "filters are available")
}
