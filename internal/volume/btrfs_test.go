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
	require(t, "btrfs-quota", missing)
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

func TestGrow(t *testing.T) {
	for _, b := range []Backend{BtrfsLoop, XFSLoop} {
		t.Run(string(b), func(t *testing.T) {
			root := hostFor(t, b)
			s := openStore(t, Options{Root: root, Backend: b})
			v := seed(t, s, "data", sample(t))
			before, err := space(s.data)
			must(t, err)
			must(t, s.makeRoom(t.Context(), before.size))
			after, err := space(s.data)
			must(t, err)
			if after.free < before.size {
				t.Errorf("of %s wanted %s are free", human(before.size), human(after.free))
			}
			says(t, s.makeRoom(t.Context(), 1<<50), "needs 1048576.0 GiB more", "volumes rm")
			closed(t, s)
			s = openStore(t, Options{Root: root})
			if got, err := space(s.data); err != nil || got.size != after.size {
				t.Errorf("opened again it has %s (%v), had %s", human(got.size), err, human(after.size))
			}
			if sum(t, snapshot(t, s, "data").Dir).digest != v.Digest {
				t.Error("its content changed")
			}
		})
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

// What stands at the mount point and is not slipway's own stays as it is.
func TestForeignMount(t *testing.T) {
	requireRoot(t)
	root := t.TempDir()
	at := filepath.Join(root, "volumes", dataDir)
	must(t, os.MkdirAll(at, 0o700))
	must(t, unix.Mount("tmpfs", at, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(at, 0)) })
	put(t, at, "theirs", "1")
	_, err := Open(t.Context(), Options{Root: root, Backend: PlainCopy})
	says(t, err, "tmpfs is mounted", "unmount it")
	if get(t, at, "theirs") != "1" {
		t.Error("it was touched")
	}
}

// A new store takes the best that works, and the copy as a last resort.
func TestChoice(t *testing.T) {
	for b, host := range map[Backend]Backend{Btrfs: BtrfsLoop, Reflink: XFSLoop} {
		t.Run(string(b), func(t *testing.T) {
			outer := newStore(t, host)
			c, err := outer.Empty(t.Context(), CopyOptions{})
			must(t, err)
			checkChoice(t, c.Dir, b)
		})
	}
	t.Run("tmpfs", func(t *testing.T) { // shares no blocks
		requireRoot(t)
		requireBackend(t, BtrfsLoop)
		root := t.TempDir()
		must(t, unix.Mount("tmpfs", root, "tmpfs", 0, "size=2g"))
		t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
		checkChoice(t, root, BtrfsLoop)
	})
}

func checkChoice(t *testing.T, root string, want Backend) {
	t.Helper()
	before, why, err := Probe(t.Context(), root)
	must(t, err)
	if before != want {
		t.Errorf("foretold %s (%s), want %s", before, why, want)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("the probe left %v (%v)", left, err)
	}
	s := openStore(t, Options{Root: root})
	if s.Backend() != want {
		t.Errorf("the store is %s, want %s", s.Backend(), want)
	}
	if after, _, err := Probe(t.Context(), root); err != nil || after != want {
		t.Errorf("afterwards the probe says %s (%v)", after, err)
	}
	v := seed(t, s, "data", sample(t))
	_, u, err := s.Inspect(t.Context(), v.ID)
	must(t, err)
	if u.Stored == 0 || u.Shared != 0 {
		t.Errorf("alone it takes %+v", u)
	}
	snapshot(t, s, "data")
	must(t, s.sync())
	if _, u, err = s.Inspect(t.Context(), v.ID); err != nil || u.Shared == 0 {
		t.Errorf("with a copy it takes %+v (%v)", u, err)
	}
}

// A backend that cannot be is an error that says why; a store of a later slipway too.
func TestNoBackend(t *testing.T) {
	requireRoot(t)
	root := t.TempDir()
	var st unix.Statfs_t
	must(t, unix.Statfs(root, &st))
	if st.Type != unix.BTRFS_SUPER_MAGIC {
		_, err := Open(t.Context(), Options{Root: root, Backend: Btrfs})
		says(t, err, "not btrfs")
	}
	must(t, os.WriteFile(filepath.Join(root, "volumes", backendFile), []byte("quantum\n"), 0o600))
	_, err := Open(t.Context(), Options{Root: root})
	says(t, err, "quantum", "move")
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{"/a b": "/a b", `/a\040b`: "/a b", `/a\134b`: `/a\b`, `/a\`: `/a\`, `\04`: `\04`} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
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
