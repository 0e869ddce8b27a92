package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mountLayers shows layers, topmost first, as the one file system they make:
// the kernel knows best what a whiteout hides. It is read-only and attached
// nowhere, so that it is gone with this process, however that ends. root leads
// to it until unmount.
func (s *Store) mountLayers(layers []string) (root string, unmount func(), err error) {
	if len(layers) == 0 {
		return "", nil, errors.New("an image without layers has no files")
	}
	// One more below all: overlayfs wants two, and a whiteout in the lowest layer
	// of an image hides nothing and is still none of its files.
	empty := s.temporary("below")
	if err := os.Mkdir(empty, 0o700); err != nil {
		return "", nil, err
	}
	layers = append(append([]string{}, layers...), empty)
	fd, err := overlayByFD(layers)
	if errors.Is(err, errOldOverlay) {
		fd, err = overlayByPath(layers, s.temporary("overlay"))
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("mount %d layers: %w", len(layers)-1, err), os.Remove(empty))
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), func() {
		closeFD(fd)
		_ = os.Remove(empty) // else with the session
	}, nil
}

// errOldOverlay: the kernel does not take layers by file descriptor (Linux 6.13).
var errOldOverlay = errors.New("overlayfs takes no layers by file descriptor")

const imageAttrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOATIME

func overlayByFD(layers []string) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer closeFD(fs)
	for _, dir := range layers {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: dir, Err: err}
		}
		err = unix.FsconfigSetFd(fs, "lowerdir+", fd)
		closeFD(fd)
		if err != nil {
			return -1, errOldOverlay
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, imageAttrs)
}

// overlayByPath is for older kernels: they take a mount's options in one page,
// and make it only where it can be seen for a moment.
func overlayByPath(layers []string, at string) (fd int, err error) {
	options := "lowerdir=" + strings.Join(layers, ":")
	if len(options) >= os.Getpagesize() {
		return -1, fmt.Errorf("their %d paths do not fit a page, and this kernel takes no others; use Linux 6.13 or newer, or a shorter --root", len(layers))
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		return -1, err
	}
	defer func() { err = errors.Join(err, os.Remove(at)) }()
	if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME, options); err != nil {
		return -1, err
	}
	fd, err = openDir(filepath.Clean(at))
	return fd, errors.Join(err, unix.Unmount(at, unix.MNT_DETACH))
}
