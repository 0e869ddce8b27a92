package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// agent are the ways from a command to its PID 1.
func agent() map[string]attempt {
	return map[string]attempt{
		"agent-trace":   func([]string) error { return onThread(func() error { return unix.PtraceSeize(1) }) }, // it goes on
		"agent-memory":  func([]string) error { return openFor("/proc/1/mem", unix.O_RDWR) },
		"agent-program": func([]string) error { return readable("/proc/1/exe") },
		"agent-overwrite": func([]string) error {
			err := openFor("/proc/1/exe", unix.O_WRONLY)
			if errors.Is(err, unix.ETXTBSY) { // allowed, and possible as soon as it ends
				return nil
			}
			return err
		},
		"agent-files": func([]string) error { _, err := os.ReadDir("/proc/1/fd"); return err },
		"agent-kill": func([]string) error {
			if err := unix.Kill(1, unix.SIGKILL); err != nil {
				return err
			}
			time.Sleep(200 * time.Millisecond)
			return errors.New("PID 1 lives on")
		},
	}
}

// devices are ways to the host's disks.
func devices() map[string]attempt {
	return map[string]attempt{
		"mknod": func(args []string) error {
			number, err := strconv.Atoi(args[0])
			if err == nil {
				err = unix.Mknod("/tmp/disk", unix.S_IFBLK|0o600, number)
			}
			if err != nil {
				return err
			}
			return readable("/tmp/disk")
		},
		"read": func(args []string) error { return readable(args[0]) },
		"list": func(args []string) error {
			names, err := os.ReadDir(args[0])
			if err == nil && len(names) == 0 {
				err = errEmpty
			}
			return err
		},
		"open-for-writing": func(args []string) error { return openFor(args[0], unix.O_WRONLY) },
		"rewrite":          func(args []string) error { return rewrite(args[0]) },
	}
}

// host are things of the host, and of others on it, that are reached without a path.
func host() map[string]attempt {
	dial := func(network string) attempt {
		return func(args []string) error {
			c, err := net.DialTimeout(network, args[0], 5*time.Second)
			if err == nil {
				err = c.Close()
			}
			return err
		}
	}
	return map[string]attempt{
		"tcp":  dial("tcp"),
		"unix": dial("unix"), // a name that begins with @ is abstract
		"shared-memory": func(args []string) error {
			key, _ := strconv.Atoi(args[0])
			_, err := unix.SysvShmGet(key, 0, 0)
			return err
		},
		"cgroup": func([]string) error { return cgroup("pids.max") },
		"release_agent": func([]string) error {
			dir, err := cgroups()
			if err != nil {
				return err
			}
			return openFor(filepath.Join(dir, "release_agent"), unix.O_WRONLY)
		},
		"inotify":      func([]string) error { return inotify() },
		"inotify-once": func([]string) error { _, err := unix.InotifyInit(); return err },
	}
}

// cgroups mounts a hierarchy, where none is mounted, and gives where it is.
func cgroups() (string, error) {
	const v2 = "/sys/fs/cgroup"
	if _, err := os.Stat(v2 + "/cgroup.procs"); err == nil {
		return v2, nil
	}
	return "/tmp", unix.Mount("cgroup", "/tmp", "cgroup", 0, "pids")
}

// cgroup writes the limits of the sandbox itself.
func cgroup(name string) error {
	dir, err := cgroups()
	if err != nil {
		return err
	}
	at := filepath.Join(dir, name)
	if _, err := os.Stat(at); err != nil { // the whole tree is seen, not only our own cgroup
		return openFor(filepath.Join(dir, "cgroup.procs"), unix.O_WRONLY)
	}
	return openFor(at, unix.O_WRONLY)
}

// inotify takes all instances that this user may have, and keeps them a while.
func inotify() error {
	for n := 0; ; n++ {
		if _, err := unix.InotifyInit(); err != nil {
			if n == 0 {
				return err
			}
			os.Stdout.WriteString("taken " + strconv.Itoa(n) + "\n")
			time.Sleep(6 * time.Second)
			return nil
		}
	}
}
