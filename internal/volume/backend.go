package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Backend is how a store makes copies.
type Backend string

// The backends, the best first.
const (
	Btrfs     Backend = "btrfs"      // snapshots; the state directory is on btrfs
	Reflink   Backend = "reflink"    // files that share blocks; the host's file system can (XFS, bcachefs, …)
	BtrfsLoop Backend = "btrfs-loop" // snapshots, in an image file
	XFSLoop   Backend = "xfs-loop"   // files that share blocks, in an image file
	PlainCopy Backend = "copy"       // the last resort: every byte of every copy is written
)

// preference is the order in which a new store tries them.
func preference() []Backend { return []Backend{Btrfs, Reflink, BtrfsLoop, XFSLoop, PlainCopy} }

func (b Backend) loop() bool { return b == BtrfsLoop || b == XFSLoop }

func (b Backend) trees() trees {
	if b == Btrfs || b == BtrfsLoop {
		return subvolumes{}
	}
	return files{}
}

// filesystem of an image.
func (b Backend) filesystem() string {
	if b == BtrfsLoop {
		return "btrfs"
	}
	return "xfs"
}

// readBackend is empty when there is no store yet.
func (s *Store) readBackend() (Backend, error) {
	data, err := os.ReadFile(filepath.Join(s.root, backendFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	b := Backend(strings.TrimSpace(string(data)))
	if !slices.Contains(preference(), b) {
		return "", fmt.Errorf("%s says %q, which this slipway does not know; use the version that made it, or move %s away", filepath.Join(s.root, backendFile), b, s.root)
	}
	return b, nil
}

// create makes a new store with the first backend that works here. Called under
// the store's lock; the backend file is written last, so that a crash before
// means a new start.
func (s *Store) create(ctx context.Context, o Options) (Backend, error) {
	if err := s.clearHalfMade(); err != nil {
		return "", err
	}
	candidates := preference()
	if o.Backend != "" {
		candidates = []Backend{o.Backend}
	}
	var whyNot []error
	for _, b := range candidates {
		err := s.try(ctx, b, o.Size)
		if err == nil {
			path := filepath.Join(s.root, backendFile)
			err = writeFile(path+".new", path, []byte(b+"\n"))
		}
		if err == nil {
			if b == PlainCopy && o.Backend == "" {
				s.log.Warn().Err(errors.Join(whyNot...)).Msg("volumes will be copied byte by byte, which takes time and space; `slipway doctor` says what is missing")
			}
			return b, nil
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		whyNot = append(whyNot, fmt.Errorf("%s: %w", b, err))
		if err := s.clearHalfMade(); err != nil {
			return "", errors.Join(append(whyNot, err)...)
		}
	}
	return "", errors.Join(whyNot...)
}

// try makes the store's file system where b needs one, and a copy in it.
func (s *Store) try(ctx context.Context, b Backend, size int64) error {
	if b.loop() {
		if err := s.createImage(ctx, b, size); err != nil {
			return err
		}
	} else if err := os.Mkdir(s.data, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return rehearse(ctx, b, s.data)
}

// rehearse makes and removes a copy in dir, in the way of b.
func rehearse(ctx context.Context, b Backend, dir string) (err error) {
	switch b {
	case Reflink, XFSLoop:
		if err := rehearseClone(dir); err != nil {
			return err
		}
	case Btrfs, BtrfsLoop:
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		if st.Type != unix.BTRFS_SUPER_MAGIC {
			return errors.New("the file system is not btrfs")
		}
	}
	t := b.trees()
	place, err := os.MkdirTemp(dir, ".try-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.remove(place)) }()
	from, to := filepath.Join(place, "from"), filepath.Join(place, "to")
	return errors.Join(t.create(from), t.snapshot(ctx, from, to), t.remove(to))
}

// rehearseClone is nil where files can share blocks.
func rehearseClone(dir string) error {
	from, err := os.CreateTemp(dir, ".try-*")
	if err != nil {
		return err
	}
	defer discard(from)
	if _, err := from.Write(make([]byte, 4096)); err != nil {
		return err
	}
	to, err := os.CreateTemp(dir, ".try-*")
	if err != nil {
		return err
	}
	defer discard(to)
	if err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd())); err != nil {
		return fmt.Errorf("the file system shares no blocks between files: %w", err)
	}
	return nil
}

// discard removes a temporary file.
func discard(f *os.File) {
	closeFile(f)
	_ = os.Remove(f.Name())
}

// clearHalfMade removes what a creation left that did not end.
func (s *Store) clearHalfMade() error {
	image := filepath.Join(s.root, imageFile)
	if mounted, err := mountedAt(s.data); err != nil {
		return err
	} else if mounted != "" {
		ours, err := hasImage(mounted, image)
		if err != nil {
			return err
		}
		if !ours {
			return fmt.Errorf("%s is mounted at %s, which slipway did not do; unmount it", mounted, s.data)
		}
		if err := unmount(s.data); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(s.data, volumesDir)); err == nil {
		return fmt.Errorf("%s holds volumes, but %s is gone, which says what made them; write one of %q into it", s.data, filepath.Join(s.root, backendFile), preference())
	}
	// What is left can be nothing but a rehearsal.
	if err := removeAll(s.data); err != nil {
		return err
	}
	return removeAll(image)
}

// removeAll removes directories, and subvolumes where there are any.
func removeAll(path string) error {
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	return subvolumes{}.remove(path)
}
