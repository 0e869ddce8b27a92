package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// attachLoop gives a loop device of the image file, opened: the one that already
// has it, or a new one. A second device for the same file would be a second,
// unaware writer, so callers hold the store's lock. The device detaches itself
// (LO_FLAGS_AUTOCLEAR) with its last user: the mount, or the file returned.
//
// It goes through the host's page cache (no LO_FLAGS_DIRECT_IO): every copy of a
// volume has pages of its own, so that without it each would read from the disk
// what the one before has just read.
func attachLoop(image string) (*os.File, error) {
	dev, err := findLoop(image)
	if dev != nil || err != nil {
		return dev, err
	}
	backing, err := os.OpenFile(image, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("attach %s to a loop device: %w", image, err)
	}
	defer control.Close()
	for range 64 { // between asking for a free device and taking it, another process may take it
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("ask for a free loop device: %w", err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("attach %s to a loop device: %w", image, err)
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		copy(config.Info.File_name[:len(config.Info.File_name)-1], image)
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			return dev, nil
		}
		closeFile(dev)
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s to a loop device: %w", image, err)
		}
	}
	return nil, fmt.Errorf("attach %s: every free loop device was taken by someone else meanwhile; try again", image)
}

// findLoop opens the loop device that has the image file, by the file itself
// and not by its name; nil when there is none.
func findLoop(image string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Stat(image, &st); errors.Is(err, unix.ENOENT) {
		return nil, nil
	} else if err != nil {
		return nil, &os.PathError{Op: "stat", Path: image, Err: err}
	}
	bound, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	for _, dir := range bound {
		path := "/dev/" + filepath.Base(filepath.Dir(dir))
		dev, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // gone meanwhile, read-only, or not to be seen from here: none of ours
		}
		// Asked while it is held open: it cannot be detached from here on.
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		if err == nil && info.Device == st.Dev && info.Inode == st.Ino {
			return dev, nil
		}
		closeFile(dev)
	}
	return nil, nil
}

// growLoop makes the device of the image as large as the file has become.
func growLoop(image string) error {
	dev, err := findLoop(image)
	if err != nil {
		return err
	}
	if dev == nil {
		return fmt.Errorf("grow %s: no loop device has it; close slipway and start it again", image)
	}
	defer dev.Close()
	if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("grow %s: %w", dev.Name(), err)
	}
	return nil
}

// closeFile closes what nothing was written to.
func closeFile(f *os.File) { _ = f.Close() }
