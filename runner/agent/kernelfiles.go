package agent

import (
	"errors"
	"path"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// kernelFiles are the file systems that show a sandbox's own namespaces, and so
// can be made from inside only. They are made while the old root is there, since
// the kernel refuses a fresh /proc to whom no whole one is visible, and attached
// when the new one is.
type kernelFiles struct {
	proc, sys, pts, mqueue int
	cgroup                 int // -1: none
}

const quiet = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

func newKernelFiles(s *wire.Setup) (k kernelFiles, err error) {
	k.cgroup, k.sys, k.mqueue = -1, -1, -1
	sys := quiet | unix.MOUNT_ATTR_RDONLY
	if off("read-only /sys") {
		sys = quiet
	}
	for _, f := range []struct {
		name    string
		fd      *int
		flags   int
		options [][2]string
		wanted  bool
	}{
		{"proc", &k.proc, quiet, nil, true},
		{"sysfs", &k.sys, sys, nil, !off("network namespace")},
		{"devpts", &k.pts, unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC, [][2]string{{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}}, true},
		{"mqueue", &k.mqueue, quiet, nil, !off("ipc namespace")},
		// Runtimes size their heaps and thread pools by what they read here. The
		// ten mounts it takes with version 1 would cost more than all the others.
		{"cgroup2", &k.cgroup, sys, nil, s.Unified && !off("network namespace")},
	} {
		if !f.wanted {
			continue
		}
		if *f.fd, err = newMount(f.name, f.flags, f.options); err != nil {
			return k, failed("mount "+f.name, err)
		}
	}
	return k, nil
}

// newMount makes a file system, attached nowhere yet.
func newMount(name string, flags int, options [][2]string) (int, error) {
	fs, err := unix.Fsopen(name, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer dropFD(fs)
	for _, o := range append(options, [2]string{"source", name}) {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, flags)
}

// attach puts them where programs look for them, and keeps /proc open.
func (k kernelFiles) attach() error {
	for _, m := range []struct {
		fd int
		at string
	}{{k.proc, "/proc"}, {k.sys, "/sys"}, {k.pts, "/dev/pts"}, {k.mqueue, "/dev/mqueue"}, {k.cgroup, "/sys/fs/cgroup"}} {
		if m.fd < 0 {
			continue
		}
		at, err := directory(m.at)
		if err == nil {
			err = mountOn(m.fd, at)
			dropFD(at)
		}
		if err != nil {
			return failed("mount "+m.at, err)
		}
		if m.fd != k.proc {
			dropFD(m.fd)
		}
	}
	return nil
}

// directory opens one that is no link itself. /dev may be reached by one: it was
// placed wherever the image's link leads.
func directory(name string) (int, error) {
	parent, err := unix.Open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer dropFD(parent)
	return unix.Openat(parent, path.Base(name), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func mountOn(fd, at int) error {
	return unix.MoveMount(fd, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// restrictProc allows programs to listen on any port, and then lets nobody write
// to what is not the sandbox's own. proc is closed.
func restrictProc(proc int) error {
	defer dropFD(proc)
	// As Docker: in its own network a service may listen on port 80 whoever it runs as.
	port, err := unix.Openat(proc, "sys/net/ipv4/ip_unprivileged_port_start", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(port, []byte("0"))
		dropFD(port)
	}
	if err != nil && !off("network namespace") {
		return failed("allow low ports", err)
	}
	if off("read-only /proc") {
		return nil
	}
	for _, name := range []string{"bus", "fs", "irq", "sys", "sysrq-trigger"} {
		fd, err := unix.OpenTree(proc, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			continue
		}
		if err == nil {
			err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: quiet | unix.MOUNT_ATTR_RDONLY})
			if err == nil {
				err = unix.MoveMount(fd, "", proc, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
			}
			dropFD(fd)
		}
		if err != nil {
			return failed("make /proc/"+name+" read-only", err)
		}
	}
	return nil
}

// mask hides files under /dev/null and directories under an empty one.
func mask(paths []string) error {
	for _, name := range paths {
		at, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err == nil {
			err = maskOne(at)
			dropFD(at)
		}
		if err != nil {
			return failed("hide "+name, err)
		}
	}
	return nil
}

func maskOne(at int) error {
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return err
	}
	var fd int
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		fd, err = newMount("tmpfs", quiet|unix.MOUNT_ATTR_RDONLY, [][2]string{{"size", "4k"}, {"nr_inodes", "1"}})
	} else {
		fd, err = devNull()
	}
	if err != nil {
		return err
	}
	defer dropFD(fd)
	return mountOn(fd, at)
}

// devNull is a mount of the one device whose number says what it is.
func devNull() (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/dev/null", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		dropFD(fd)
		return -1, unix.ENODEV
	}
	return fd, nil
}
