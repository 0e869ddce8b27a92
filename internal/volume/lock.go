package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Locks are flock(2): the kernel frees them with the process, however it ends.

// waitLock takes a lock on the file at path, made when missing.
func waitLock(ctx context.Context, path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := wait(ctx, f, how); err != nil {
		closeFile(f)
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func wait(ctx context.Context, f *os.File, how int) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := flock(f, how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// tryLock is nil without an error when another has the lock.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	switch err := flock(f, unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		closeFile(f)
		return nil, nil
	case err != nil:
		closeFile(f)
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// lockUsers counts this process among those that use the mount in its mount
// namespace. Called under the store's lock.
func lockUsers(root string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &st); err != nil {
		return nil, fmt.Errorf("look at the mount namespace: %w", err)
	}
	return waitLock(context.Background(), filepath.Join(root, fmt.Sprintf("users-%d", st.Ino)), unix.LOCK_SH)
}

// unlockUsers says whether this was the last. Called under the store's lock.
func unlockUsers(f *os.File) (last bool) {
	defer closeFile(f)
	last = flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil
	if last {
		_ = os.Remove(f.Name()) // a stale empty file harms nobody
	}
	return last
}
