package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel are the system calls that a test has no business with.
func kernel() map[string]attempt {
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS) // which Go does not move
	if err != nil {
		panic(err)
	}
	at := uintptr(unsafe.Pointer(&page[0]))
	some := uintptr(unsafe.Pointer(unsafe.StringData("user\x00")))
	root := uintptr(unsafe.Pointer(unsafe.StringData("/\x00")))
	bare := func(past []unix.Errno, number uintptr, args ...uintptr) attempt {
		return func([]string) error { return call(past, number, args...) }
	}
	return map[string]attempt{
		"mount":     func([]string) error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") },
		"mount-api": func([]string) error { return mountAPI() },
		"open_tree": func([]string) error {
			_, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE)
			return err
		},
		"umount":      func([]string) error { return unix.Unmount("/proc/sys", unix.MNT_DETACH) },
		"remount":     func([]string) error { return unix.Mount("", "/sys", "", unix.MS_REMOUNT|unix.MS_BIND, "") },
		"pivot_root":  bare([]unix.Errno{unix.EINVAL, unix.EBUSY}, unix.SYS_PIVOT_ROOT, root, root),
		"setns":       func([]string) error { return setns() },
		"user-ns":     func([]string) error { return clone(unix.CLONE_NEWUSER) },
		"net-ns":      func([]string) error { return clone(unix.CLONE_NEWNET) },
		"mount-ns":    func([]string) error { return clone(unix.CLONE_NEWNS) },
		"time-ns":     func([]string) error { return onThread(func() error { return unix.Unshare(unix.CLONE_NEWTIME) }) },
		"keyctl":      bare(nil, unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(2), 1), // -3: the session's
		"add_key":     bare(nil, unix.SYS_ADD_KEY, some, some, some, 4, ^uintptr(2)),
		"io_uring":    bare(nil, unix.SYS_IO_URING_SETUP, 1, at),
		"bpf":         func([]string) error { return bpfMap() },
		"perf":        func([]string) error { return perf() },
		"userfaultfd": bare(nil, unix.SYS_USERFAULTFD, 1), // UFFD_USER_MODE_ONLY
		"vsock":       socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0),
		"alg":         socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0),
		"packet":      socket(unix.AF_PACKET, unix.SOCK_RAW, 0),
		"raw":         socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
		"syslog":      bare(nil, unix.SYS_SYSLOG, 3, at, uintptr(len(page))), // SYSLOG_ACTION_READ_ALL
		"kexec":       bare([]unix.Errno{unix.EINVAL, unix.EADDRNOTAVAIL}, unix.SYS_KEXEC_LOAD, 0, 17, at, 0),
		"module":      bare([]unix.Errno{unix.ENOEXEC, unix.EINVAL, unix.EFAULT}, unix.SYS_INIT_MODULE, at, 64, at),
		"reboot":      bare([]unix.Errno{unix.EINVAL}, unix.SYS_REBOOT, unix.LINUX_REBOOT_MAGIC1, unix.LINUX_REBOOT_MAGIC2, unix.LINUX_REBOOT_CMD_CAD_ON), // in a pid namespace it is not valid, for who may
		"clock":       func([]string) error { return clock() },
		"hostname":    func([]string) error { return unix.Sethostname([]byte("slipway")) },
		"handle":      func(args []string) error { return handle(args[0]) },
		"core":        raise(unix.RLIMIT_CORE),
		"set-user-id": func([]string) error { return becameRoot() },
	}
}

// mountAPI mounts without mount(2).
func mountAPI() error {
	fs, err := unix.Fsopen("tmpfs", 0)
	if err != nil {
		return err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	_, err = unix.Fsmount(fs, 0, 0)
	return err
}

// onThread does something that only a thread thrown away after may.
func onThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- do()
	}()
	return <-done
}

func setns() error {
	fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return onThread(func() error { return unix.Setns(fd, unix.CLONE_NEWNET) })
}

// clone starts a process in a namespace of its own.
func clone(flag uintptr) error {
	c := exec.Command("/proc/self/exe", "nothing")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flag}
	if err := c.Start(); err != nil {
		return err
	}
	_ = c.Wait() // it says that there is no such attempt
	return nil
}

func bpfMap() error {
	attr := struct{ kind, key, value, entries uint32 }{2, 4, 4, 1} // BPF_MAP_TYPE_ARRAY
	return call(nil, unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
}

// perf counts what the whole machine does.
func perf() error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK}
	attr.Size = uint32(unsafe.Sizeof(attr))
	_, err := unix.PerfEventOpen(&attr, -1, 0, -1, 0)
	return err
}

func socket(family, kind, protocol int) attempt {
	return func([]string) error {
		_, err := unix.Socket(family, kind, protocol)
		return err
	}
}

// clock sets the clock to what it is.
func clock() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		return err
	}
	return call(nil, unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(&now)))
}

// handle opens the root of the host's filesystem by its number, from a file of
// the sandbox that lies on it ("shocker").
func handle(at string) error {
	mount, err := unix.Open(at, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	root := unix.NewFileHandle(1, []byte{2, 0, 0, 0, 0, 0, 0, 0}) // FILEID_INO32_GEN, inode 2
	_, err = unix.OpenByHandleAt(mount, root, unix.O_RDONLY)
	return err
}

func raise(what int) attempt {
	return func([]string) error {
		return unix.Setrlimit(what, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	}
}

var errStill = errors.New("still the user it was")

// becameRoot is run from a set-user-id file.
func becameRoot() error {
	if os.Geteuid() != 0 || os.Getuid() == 0 {
		return errStill
	}
	return nil
}
