package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"slipway/internal/need"

	"golang.org/x/sys/unix"
)

// A copy may be told how much it may write; subvolumes made in it count too, and
// at its limit it can still be removed.
func TestLimit(t *testing.T) {
	s := newStore(t, BtrfsLoop)
	v := seed(t, s, "data", sample(t))
	limited, err := s.Snapshot(t.Context(), "data", CopyOptions{Limit: 8 << 20})
	must(t, err)
	var missing error
	if !limited.Limited {
		missing = errors.New("no simple quotas of btrfs in this kernel; Linux 6.7 has them")
	}
	need.Have(t, "btrfs-quota", missing)
	free := snapshot(t, s, "data")

	fill := func(dir string) error {
		f, err := os.Create(filepath.Join(dir, "fill"))
		if err != nil {
			return err
		}
		_, err = f.Write(make([]byte, 16<<20))
		return errors.Join(err, f.Sync(), f.Close())
	}
	must(t, fill(free.Dir))
	nested := filepath.Join(limited.Dir, "nested")
	must(t, subvolumes{}.create(nested))
	if err := fill(nested); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("a subvolume inside a limited copy: %v, want %v", err, unix.EDQUOT)
	}
	if err := fill(limited.Dir); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("past the limit: %v, want %v", err, unix.EDQUOT)
	}
	must(t, limited.Release())
	if _, err := os.Stat(filepath.Dir(limited.Dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a copy at its limit stays: %v", err)
	}
	if got := sum(t, snapshot(t, s, "data").Dir).digest; got != v.Digest {
		t.Error("the volume changed")
	}
}

// A volume cannot be written by mistake where the file system can prevent it.
func TestSealed(t *testing.T) {
	s := newStore(t, BtrfsLoop)
	v := seed(t, s, "data", sample(t))
	err := os.WriteFile(filepath.Join(s.volume(v.ID), treeDir, "a file"), nil, 0o600)
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("writing in a volume: %v, want %v", err, unix.EROFS)
	}
}

// Owners stay plain in the store; a sandbox sees them mapped by its bind mount,
// and what it writes comes out plain again.
func TestMappedOwners(t *testing.T) {
	const first = 1 << 30
	eachBackend(t, func(t *testing.T, s *Store) {
		seed(t, s, "data", sample(t))
		c := snapshot(t, s, "data")
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: 65536}}
		holder := exec.Command("sleep", "60")
		holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Pdeathsig: syscall.SIGKILL}
		must(t, holder.Start())
		defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
		userns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid))
		must(t, err)
		defer userns.Close()
		fd, err := unix.OpenTree(unix.AT_FDCWD, c.Dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		must(t, err)
		defer closeFD(fd)
		must(t, unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}))

		var st unix.Stat_t
		must(t, unix.Fstatat(fd, "sub/mysql/ibdata1", &st, 0))
		if st.Uid != first+999 || st.Gid != first+999 {
			t.Errorf("999:999 shows as %d:%d through the mapped mount, want %d", st.Uid, st.Gid, first+999)
		}
		// A write by the sandbox's user 999, made here with its ids.
		write := exec.Command("/bin/sh", "-c", "echo row >> sub/mysql/ibdata1 && echo new > sub/mysql/new")
		write.Dir = fmt.Sprintf("/proc/self/fd/%d", fd)
		write.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: first + 999, Gid: first + 999, Groups: []uint32{first + 998}}}
		must(t, os.Chown(filepath.Join(c.Dir, "sub/mysql"), 999, 999))
		if out, err := write.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		must(t, unix.Stat(filepath.Join(c.Dir, "sub/mysql/new"), &st))
		if st.Uid != 999 || st.Gid != 999 {
			t.Errorf("what it wrote belongs to %d:%d in the store, want 999:999", st.Uid, st.Gid)
		}
	})
}

// While a sandbox still has it mounted a copy can be kept, and removed.
func TestMountedCopy(t *testing.T) {
	for _, b := range []Backend{BtrfsLoop, XFSLoop, PlainCopy} {
		t.Run(string(b), func(t *testing.T) {
			s := newStore(t, b)
			seed(t, s, "data", sample(t))
			c := snapshot(t, s, "data")
			fd, err := unix.OpenTree(unix.AT_FDCWD, c.Dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			must(t, err)
			defer closeFD(fd)
			at := fmt.Sprintf("/proc/self/fd/%d/", fd)
			must(t, c.Keep("kept"))
			if got := get(t, at, "a file"); got != "content" {
				t.Errorf("kept while mounted, it reads %q there", got)
			}
			c, err = s.Take("kept")
			must(t, err)
			must(t, c.Release())
			if _, err := os.Stat(at + "a file"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("released while mounted, it is still there: %v", err)
			}
		})
	}
}

// Two programs that seed the same at once get the same, and one volume.
func TestConcurrent(t *testing.T) {
	s := newStore(t, PlainCopy)
	dir := sample(t)
	ids := make(chan string, 8)
	for i := range cap(ids) {
		go func() {
			v, err := s.Seed(context.Background(), fmt.Sprintf("name%d", i), Directory(dir, "."))
			if err != nil {
				t.Error(err)
			}
			c, err := s.Snapshot(context.Background(), v.ID, CopyOptions{})
			if err == nil {
				err = c.Release()
			}
			if err != nil {
				t.Error(err)
			}
			ids <- v.ID
		}()
	}
	var all []string
	for range cap(ids) {
		all = append(all, <-ids)
	}
	if len(slices.Compact(all)) != 1 {
		t.Errorf("volumes %v", all)
	}
	v, err := s.Find(all[0])
	must(t, err)
	if len(v.Names) != cap(ids) {
		t.Errorf("names %s", strings.Join(v.Names, " "))
	}
}
