package sandbox

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// killLimit is how long the kernel gets to end a killed sandbox. A process can
// be stuck in the kernel (a dead network filesystem), and then nothing helps.
const killLimit = 30 * time.Second

// kill ends everything in the sandbox. PID 1 is enough: the kernel kills the
// rest of its pid namespace, and waits for it (pid_namespaces(7)).
func (b *box) kill() {
	if b.process != nil {
		_ = b.process.Signal(unix.SIGKILL) // already gone is as good
	}
}

// destroy kills and removes; a second call waits for the first.
func (h *helper) destroy(b *box) error {
	if b == nil {
		return nil
	}
	b.once.Do(func() { b.removeErr = h.remove(b) })
	return b.removeErr
}

func (h *helper) remove(b *box) error {
	h.watch.remove(b)
	b.kill()
	if b.ended != nil {
		select {
		case <-b.ended:
		case <-time.After(killLimit):
			return fmt.Errorf("sandbox %s does not die: a process of it hangs in the kernel (see `ps` for state D); it is reaped at the next start", b.id)
		}
	}
	var errs []error
	if b.group != nil {
		errs = append(errs, b.group.remove())
	}
	errs = append(errs, detach(b.target))
	if b.dir != "" {
		errs = append(errs, removeTree(b.dir))
	}
	if b.slot != nil {
		h.slots.put(b.slot)
	}
	return errors.Join(errs...)
}

// detach unmounts, with what is mounted below, and removes a mount point.
func detach(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
