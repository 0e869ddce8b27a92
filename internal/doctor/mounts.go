package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// checkMounts tries in dir, which is empty and on the root's file system, what
// a sandbox's root is made with.
func checkMounts(dir, fsname string, userns *os.File) []Finding {
	all := []Finding{checkOverlay(dir, fsname)}
	if all[0].State == Fail {
		return all
	}
	if userns == nil {
		return append(all, warn("id-mapped layers", "not tried: no user namespace could be made", "see the finding on user namespaces"))
	}
	return append(all, checkIDMapped(dir, fsname, userns), checkLayersByFD(dir))
}

// stack is an overlay's directories.
type stack struct{ lower, upper, work, merged string }

// newStack makes fresh ones, with a file in the lower.
func newStack(dir, name string) (s stack, err error) {
	at := filepath.Join(dir, name)
	s = stack{filepath.Join(at, "lower"), filepath.Join(at, "upper"), filepath.Join(at, "work"), filepath.Join(at, "merged")}
	for _, d := range []string{s.lower, s.upper, s.work, s.merged} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return s, err
		}
	}
	return s, os.WriteFile(filepath.Join(s.lower, "file"), []byte("lower"), 0o644)
}

// tryStack mounts one by f in a mount namespace of its own and works in it: it
// changes a file of the lower, which copies it up, and removes it, which makes a whiteout.
func tryStack(dir, name string, mount func(stack) error) error {
	s, err := newStack(dir, name)
	if err != nil {
		return err
	}
	return inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("make a mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("keep mounts private: %w", err)
		}
		if err := mount(s); err != nil {
			return err
		}
		return errors.Join(useStack(s), unix.Unmount(s.merged, unix.MNT_DETACH))
	})
}

func useStack(s stack) error {
	file := filepath.Join(s.merged, "file")
	if err := os.Chmod(file, 0o600); err != nil {
		return fmt.Errorf("change a file of a layer: %w", err)
	}
	if err := os.Remove(file); err != nil {
		return fmt.Errorf("remove a file of a layer: %w", err)
	}
	return nil
}

func checkOverlay(dir, fsname string) Finding {
	const name = "overlayfs"
	err := tryStack(dir, "overlay", func(s stack) error { return mountOverlay(s, s.lower) })
	switch {
	case err == nil:
		return ok(name, "mounted and written to on "+fsname)
	case errors.Is(err, unix.ENODEV):
		return fail(name, err.Error(), "modprobe overlay")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fail(name, err.Error(), "run as root; inside a container, start that with --privileged")
	}
	return fail(name, fmt.Sprintf("on %s: %v", fsname, err), otherFilesystem)
}

func mountOverlay(s stack, lower string) error {
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,index=off", lower, s.upper, s.work)
	if err := unix.Mount("overlay", s.merged, "overlay", 0, data); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return nil
}

// checkIDMapped mounts a layer whose owners are mapped, which is how a sandbox
// sees files of root in the image as its own root's. Overlayfs takes such
// layers from Linux 5.19, the mounts themselves are older.
func checkIDMapped(dir, fsname string, userns *os.File) Finding {
	const name = "id-mapped layers"
	err := tryStack(dir, "idmapped", func(s stack) error {
		fd, err := unix.OpenTree(unix.AT_FDCWD, s.lower, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("open_tree: %w", err)
		}
		defer dropFD(fd)
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr); err != nil {
			return fmt.Errorf("mount_setattr: %w", err)
		}
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, s.lower, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("move_mount: %w", err)
		}
		if err := mountOverlay(s, s.lower); err != nil {
			return err
		}
		return checkOwner(filepath.Join(s.merged, "file"))
	})
	switch {
	case err == nil:
		return ok(name, "mounted on "+fsname)
	case errors.Is(err, unix.ENOSYS):
		return fail(name, err.Error()+": the kernel is too old", "use Linux 5.19 or newer")
	case errors.Is(err, unix.EINVAL):
		return fail(name, fmt.Sprintf("on %s: %v", fsname, err), otherFilesystem+"; with Linux 5.19 or newer")
	case errors.Is(err, unix.EPERM):
		return fail(name, err.Error(), "run as root; inside a container, start that with --privileged")
	}
	return fail(name, err.Error(), otherFilesystem+"; with Linux 5.19 or newer")
}

// checkOwner sees that the mapping took effect.
func checkOwner(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Uid != mappedFirst {
		return fmt.Errorf("a file of root appears as user %d instead of %d", st.Uid, mappedFirst)
	}
	return nil
}

// checkLayersByFD tries the way without paths; without it layers are attached
// first, and an image's number of layers is limited by a page of names.
func checkLayersByFD(dir string) Finding {
	const name = "layers by descriptor"
	err := tryStack(dir, "descriptor", func(s stack) error {
		ctx, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
		if err != nil {
			return fmt.Errorf("fsopen: %w", err)
		}
		defer dropFD(ctx)
		for _, d := range [][2]string{{"lowerdir+", s.lower}, {"upperdir", s.upper}, {"workdir", s.work}} {
			if err := setDir(ctx, d[0], d[1]); err != nil {
				return fmt.Errorf("%s: %w", d[0], err)
			}
		}
		if err := unix.FsconfigCreate(ctx); err != nil {
			return fmt.Errorf("fsconfig: %w", err)
		}
		m, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("fsmount: %w", err)
		}
		defer dropFD(m)
		return unix.MoveMount(m, "", unix.AT_FDCWD, s.merged, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
	if err != nil {
		return warn(name, "not with this kernel ("+err.Error()+"); slipway mounts by path, a little slower", "use Linux 6.13 or newer")
	}
	return ok(name, "mounted")
}

func setDir(ctx int, key, dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer dropFD(fd)
	return unix.FsconfigSetFd(ctx, key, fd)
}
