package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// overlay is what a sandbox's root is made of.
type overlay struct {
	lowers []string // topmost first
	below  string   // one more, below all; left out on a filesystem that cannot map owners
	state  string   // directory that holds upper and work
	target string   // mount point
	slot   *slot
}

// mount puts the layers, their owners mapped to the sandbox's ids, below a
// fresh writable layer. The image's own files are never written to: the kernel
// refuses to, and the layers are id-mapped, which nothing inside could undo.
//
// The writable layer is not id-mapped but owned by the slot: overlayfs works in
// it as root, who has no id in the map, and would silently mount read-only.
func (o overlay) mount() error {
	if err := o.matchRoot(); err != nil {
		return err
	}
	lowers := make([]int, 0, len(o.lowers))
	defer func() {
		for _, fd := range lowers {
			dropFD(fd)
		}
	}()
	for _, dir := range o.lowers {
		fd, err := idmapped(dir, o.slot, unix.MOUNT_ATTR_RDONLY)
		if err != nil {
			return err
		}
		lowers = append(lowers, fd)
	}
	if fd, err := idmapped(o.below, o.slot, unix.MOUNT_ATTR_RDONLY); err == nil {
		lowers = append(lowers, fd)
	}
	err := o.mountByFD(lowers)
	if errors.Is(err, errOldOverlay) {
		err = o.mountByPath(lowers)
	}
	if err != nil {
		return fmt.Errorf("mount the overlay of %d layers: %w; see `slipway doctor`", len(o.lowers), err)
	}
	return nil
}

// matchRoot gives the writable layer the mode of the image's root directory,
// which is hidden below it.
func (o overlay) matchRoot() error {
	var image unix.Stat_t
	if err := unix.Stat(o.lowers[0], &image); err != nil {
		return fmt.Errorf("look at the layer %s: %w", o.lowers[0], err)
	}
	if mode := image.Mode & 0o7777; mode != 0o755 { // which it has
		if err := unix.Chmod(filepath.Join(o.state, upperName), mode); err != nil {
			return fmt.Errorf("set the mode of /: %w", err)
		}
	}
	return nil
}

// idmapped clones a mount with the owners of its files mapped for a slot. Linux
// 5.12 can, for overlayfs layers 5.19.
func idmapped(source string, s *slot, attrs uint64) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", source, err)
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | attrs, Userns_fd: uint64(s.ns.Fd())}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr); err != nil {
		dropFD(fd)
		return -1, fmt.Errorf("map the owners of %s: %w; its filesystem must support id-mapped mounts (ext4, xfs, btrfs), with Linux 5.19 or newer", source, err)
	}
	return fd, nil
}

// errOldOverlay: the kernel does not take layers by file descriptor (6.13).
var errOldOverlay = errors.New("overlayfs takes no layers by file descriptor")

// mountByFD builds the overlay without any path to its id-mapped layers.
func (o overlay) mountByFD(lowers []int) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer dropFD(fs)
	for _, fd := range lowers {
		if err := unix.FsconfigSetFd(fs, "lowerdir+", fd); err != nil {
			return errOldOverlay
		}
	}
	for key, dir := range map[string]string{"upperdir": upperName, "workdir": workName} {
		fd, err := unix.Open(filepath.Join(o.state, dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", dir, err)
		}
		err = unix.FsconfigSetFd(fs, key, fd)
		dropFD(fd)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	// A sandbox's disk does not outlive it: nothing is ever synced.
	if err := unix.FsconfigSetFlag(fs, "volatile"); err != nil {
		return fmt.Errorf("volatile: %w", err)
	}
	if err := unix.FsconfigSetString(fs, "index", "off"); err != nil {
		return fmt.Errorf("index=off: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return withLog(fs, err)
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV) // an image may bring device nodes
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	defer dropFD(m)
	return unix.MoveMount(m, "", unix.AT_FDCWD, o.target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// withLog adds what the kernel has to say about a refused mount.
func withLog(fs int, err error) error {
	b := make([]byte, 1024)
	var said []string
	for {
		n, rerr := unix.Read(fs, b)
		if rerr != nil || n <= 0 {
			break
		}
		said = append(said, strings.TrimSpace(string(b[:n])))
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(said, "; "))
}

// mountByPath does the same for Linux 5.19 to 6.12. Old overlayfs takes layers
// only from mounts that are attached, and all their names must fit a page: they
// are attached as 0, 1, 2… and named relative to a thread's own directory.
func (o overlay) mountByPath(lowers []int) error {
	dir := o.target + ".layers"
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // on a tmpfs that ends with this process
	names := make([]string, len(lowers))
	for i, fd := range lowers {
		names[i] = strconv.Itoa(i)
		at := filepath.Join(dir, names[i])
		if err := os.Mkdir(at, 0o700); err != nil {
			return err
		}
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("attach a layer: %w", err)
		}
		defer func() { _ = unix.Unmount(at, unix.MNT_DETACH) }() // the overlay holds its own clone
	}
	data := "lowerdir=" + strings.Join(names, ":") + ",upperdir=" + filepath.Join(o.state, upperName) +
		",workdir=" + filepath.Join(o.state, workName) + ",index=off,volatile"
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its own directory
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(dir)
		}
		if err == nil {
			err = unix.Mount("overlay", o.target, "overlay", unix.MS_NODEV, data)
		}
		done <- err
	}()
	return <-done
}
