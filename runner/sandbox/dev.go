package sandbox

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// All devices that a sandbox has, and the symlinks that programs expect beside them.
var (
	deviceNodes = [...]string{"null", "zero", "full", "random", "urandom", "tty"}
	deviceLinks = [...][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}}
	devicePlace = [...]string{"pts", "shm", "mqueue"} // of the mounts below /dev
)

// newDev makes a /dev once; every sandbox gets a read-only clone of the mount.
// Its six nodes are the host's own, bound: no namespace of a user may make any.
func newDev(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("make /dev: %w", err)
	}
	for _, name := range devicePlace {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	for _, l := range deviceLinks {
		if err := os.Symlink(l[1], filepath.Join(dir, l[0])); err != nil {
			return err
		}
	}
	for _, name := range deviceNodes {
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind /dev/%s: %w", name, err)
		}
	}
	return nil
}

// placeDev gives a sandbox its /dev, with shared memory of its own in it.
func (h *helper) placeDev(p *placer) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, h.devDir(), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("clone /dev: %w", err)
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		dropFD(fd)
		return fmt.Errorf("clone /dev: %w", err)
	}
	if err := p.attach(fd, "/dev", true); err != nil {
		return err
	}
	shm, err := newTmpfs(p.owner, wire.Tmpfs{Size: 64 << 20, Mode: 0o1777})
	if err != nil {
		return err
	}
	return p.attach(shm, "/dev/shm", true)
}

func (h *helper) devDir() string { return filepath.Join(h.mounts, ".dev") }
