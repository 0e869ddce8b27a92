package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// reap removes what a builder that was killed left behind: the processes of its
// steps, their cgroups, mounts under its root, and files that mean nothing any
// more. BuildKit drops its own half-made records as it opens.
func reap(o Options) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	mark := openMark(o.Root)
	last, err := os.ReadFile(mark)
	crashed := err == nil
	if crashed && string(last) != boot {
		if err := setAside(o.Root); err != nil {
			return fmt.Errorf("put aside the store that was open when the machine was lost: %w", err)
		}
	}
	// It need not be synced: what a journal loses of it is also gone from the
	// stores, and an empty file is no boot's ID.
	if err := os.WriteFile(mark, []byte(boot), 0o600); err != nil {
		return fmt.Errorf("the root must be writable: %w", err)
	}
	if !crashed {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := reapCgroups(ctx, o.Cgroup); err != nil {
		return fmt.Errorf("end what a crashed builder left running: %w", err)
	}
	if err := unmountBelow(o.Root); err != nil {
		return fmt.Errorf("undo the mounts of a crashed builder: %w", err)
	}
	return reapFiles(o.Root)
}

// reapFiles runs after the mounts are gone, so it cannot reach into one.
func reapFiles(root string) error {
	var errs []error
	for _, dir := range []string{TempDir(root), stepDir(root), usernsDir(root), filepath.Join(stateDir(root), "state")} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
		for _, e := range entries {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	bundles, err := filepath.Glob(filepath.Join(bundleDir(root), "*", "rootfs"))
	errs = append(errs, err)
	for _, b := range bundles {
		errs = append(errs, os.RemoveAll(filepath.Dir(b)))
	}
	return errors.Join(errs...)
}

// unmountBelow undoes every mount under root, the latest first.
func unmountBelow(root string) error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(info)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			if p := unescape(fields[4]); strings.HasPrefix(p, root+"/") {
				points = append(points, p)
			}
		}
	}
	var errs []error
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// unescape undoes proc(5)'s \040 and its like.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// reapCgroups kills everything in the cgroup and those below it, then removes
// them, in each hierarchy there is.
func reapCgroups(ctx context.Context, cgroup string) error {
	var errs []error
	for _, top := range hierarchies() {
		dir := filepath.Join(top, cgroup)
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		errs = append(errs, killCgroup(ctx, dir), removeCgroup(ctx, dir))
	}
	return errors.Join(errs...)
}

// leaveCgroups removes the cgroups that steps ran in and the parents they leave
// empty; another user's sandboxes keep a parent.
func leaveCgroups(cgroup string) error {
	var errs []error
	for _, top := range hierarchies() {
		if _, err := os.Stat(filepath.Join(top, cgroup)); err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		errs = append(errs, removeCgroup(ctx, filepath.Join(top, cgroup)))
		cancel()
		for up := filepath.Dir(cgroup); up != "/" && up != "."; up = filepath.Dir(up) {
			if unix.Rmdir(filepath.Join(top, up)) != nil {
				break // in use, or not ours to remove
			}
		}
	}
	return errors.Join(errs...)
}

const cgroupTop = "/sys/fs/cgroup"

// cgroupsUnified tells version 2 from version 1 and the two side by side.
func cgroupsUnified() bool {
	_, err := os.Stat(filepath.Join(cgroupTop, "cgroup.controllers"))
	return err == nil
}

// hierarchies are the mount points of cgroups: one with version 2, one per
// controller with version 1.
func hierarchies() []string {
	if cgroupsUnified() {
		return []string{cgroupTop}
	}
	entries, err := os.ReadDir(cgroupTop)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() { // the rest are symbolic links such as cpu -> cpu,cpuacct
			out = append(out, filepath.Join(cgroupTop, e.Name()))
		}
	}
	return out
}

func killCgroup(ctx context.Context, dir string) error {
	for {
		var pids []int
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "cgroup.procs" {
				pids = append(pids, pidsIn(p)...)
			}
			return nil // a directory that vanished is what we want
		})
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill %d: %w", pid, err)
			}
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%d processes in %s do not end: %w", len(pids), dir, err)
		}
	}
}

func pidsIn(procs string) []int {
	data, err := os.ReadFile(procs)
	if err != nil {
		return nil
	}
	var out []int
	for _, f := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
			out = append(out, pid)
		}
	}
	return out
}

func removeCgroup(ctx context.Context, dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		for {
			err := unix.Rmdir(d)
			if err == nil || errors.Is(err, unix.ENOENT) {
				break
			}
			if !errors.Is(err, unix.EBUSY) { // a dead process is on its way out
				return fmt.Errorf("remove cgroup %s: %w", d, err)
			}
			if perr := pause(ctx); perr != nil {
				return fmt.Errorf("remove cgroup %s: %w", d, err)
			}
		}
	}
	return nil
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(2 * time.Millisecond):
		return nil
	}
}
