package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Probe says how the store of a state directory makes copies, or how a new one
// would, and why not better; for `slipway doctor`. It makes nothing that stays,
// and attaches and mounts nothing, so that only Open knows for sure.
func Probe(ctx context.Context, root string) (b Backend, why string, err error) {
	s := &Store{root: filepath.Join(root, "volumes")}
	if b, err := s.readBackend(); err != nil || b != "" {
		why := "as it was made"
		if b == PlainCopy {
			why = "as it was made; to make a better one, install btrfs-progs and move " + s.root + " away"
		}
		return b, why, err
	}
	at, err := nearest(root)
	if err != nil {
		return "", "", err
	}
	dir, err := os.MkdirTemp(at, ".slipway-probe-*")
	if err != nil {
		return "", "", fmt.Errorf("look what the file system of %s can do: %w", at, err)
	}
	defer func() { err = errors.Join(err, removeAll(dir)) }()
	for _, b := range []Backend{Btrfs, Reflink} {
		if rehearse(ctx, b, dir) == nil {
			return b, "the file system of " + at + " shares blocks between files", nil
		}
	}
	missing := loopMissing()
	if missing == nil {
		for _, b := range []Backend{BtrfsLoop, XFSLoop} {
			if _, missing = findProgram("mkfs." + b.filesystem()); missing == nil {
				return b, "the file system of " + at + " shares no blocks between files", nil
			}
		}
		missing = errors.New("neither mkfs.btrfs nor mkfs.xfs is on this machine; install btrfs-progs")
	}
	return PlainCopy, "the file system of " + at + " shares no blocks between files, and " + missing.Error(), nil
}

// loopMissing is what keeps an image file from being mounted.
func loopMissing() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can mount an image that does")
	}
	if err := unix.Access("/dev/loop-control", unix.R_OK|unix.W_OK); err != nil {
		return fmt.Errorf("there are no loop devices (/dev/loop-control: %w); load the module loop, or run the container with --privileged", err)
	}
	return nil
}

// nearest is dir, or the directory above it that there is.
func nearest(dir string) (string, error) {
	for {
		info, err := os.Stat(dir)
		if err == nil && info.IsDir() {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s: no directory (%w); choose another with --root", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}
