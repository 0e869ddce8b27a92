package volume

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountedAt is the device that is mounted at dir in this mount namespace, or
// whatever stands in its place; empty when dir is no mount point.
func mountedAt(dir string) (source string, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("read the mounts: %w", err)
	}
	defer closeFile(f)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// proc_pid_mountinfo(5): ID parent major:minor root mountpoint options … - type source options
		left, right, ok := strings.Cut(lines.Text(), " - ")
		at, what := strings.Fields(left), strings.Fields(right)
		if ok && len(at) >= 5 && len(what) >= 2 && unescape(at[4]) == dir {
			source = unescape(what[1]) // the last one lies on top
		}
	}
	return source, lines.Err()
}

// unescape undoes the kernel's \040 for blanks in paths.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// hasImage is whether dev is the loop device of the image.
func hasImage(dev, image string) (bool, error) {
	loop, err := findLoop(image)
	if loop == nil || err != nil {
		return false, err
	}
	defer closeFile(loop)
	return loop.Name() == dev, nil
}

// mount makes the image's file system appear at data, unless it is there: left
// by a crash, or shared with another process. Called under the store's lock.
func (s *Store) mount() error {
	image := imagePath(s.root)
	mounted, err := mountedAt(s.data)
	if err != nil {
		return err
	}
	if mounted != "" {
		ours, err := hasImage(mounted, image)
		if err != nil {
			return err
		}
		if !ours {
			return fmt.Errorf("%s is mounted at %s, which slipway did not do; unmount it", mounted, s.data)
		}
		if broken(s.data) == nil {
			return nil
		}
		// The kernel makes a file system read-only after an error, or shuts it, and
		// so it stays until it is mounted anew.
		if err := unmount(s.data); err != nil {
			return err
		}
	}
	dev, err := attachLoop(image)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w; slipway needs its image file and loop devices: bring back what is missing, or move %s away to begin with an empty store", err, s.root)
	}
	if err != nil {
		return fmt.Errorf("%w; slipway needs root and loop devices (in a container: --privileged)", err)
	}
	defer closeFile(dev)
	if err := mountImage(dev.Name(), s.data, s.backend); err != nil {
		return err
	}
	if err := broken(s.data); err != nil {
		return errors.Join(fmt.Errorf("the file system in %s had an error and cannot be written to: %w; see dmesg, stop every slipway that uses it, and move %s away if that does not help", image, err, s.root), unmount(s.data))
	}
	return nil
}

func mountImage(dev, dir string, b Backend) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	options := ""
	if b == BtrfsLoop {
		options = "discard=async" // over minutes; see trim
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOATIME
	if err := unix.Mount(dev, dir, b.filesystem(), flags, options); err != nil {
		return fmt.Errorf("mount the %s of %s at %s: %w; dmesg says more", b.filesystem(), dev, dir, err)
	}
	return nil
}

// unmount detaches the file system at dir. The kernel frees the loop device with
// the last user: that may be a file still open in it, or another mount namespace
// that was copied from this one meanwhile.
func unmount(dir string) error {
	err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: no mount point any more
		return &os.PathError{Op: "unmount", Path: dir, Err: err}
	}
	return nil
}

// Broken says why nothing can be written to the store any more: the file system in
// its image file had an error, such as a full disk below it, and stays as it is until
// the store is closed and opened again. It is nil where that is not so.
func (s *Store) Broken() error {
	if !s.backend.loop() {
		return nil
	}
	if err := broken(s.session); err != nil {
		return fmt.Errorf("the file system in %s had an error: %w; see dmesg", imagePath(s.root), err)
	}
	return nil
}

// broken tries to write. A file system that is full is not broken.
func broken(dir string) error {
	f, err := os.CreateTemp(dir, "probe-")
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EIO) {
		return err
	}
	return nil
}
