package volume

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"slipway/internal/need"

	"golang.org/x/sys/unix"
)

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

// What is removed goes back to the host's disk, at the latest when the store is
// closed once more.
func TestSpaceComesBack(t *testing.T) {
	for _, b := range []Backend{BtrfsLoop, XFSLoop} {
		t.Run(string(b), func(t *testing.T) {
			root, dir := hostFor(t, b), t.TempDir()
			s := openStore(t, Options{Root: root, Backend: b})
			noise := make([]byte, 100<<20)
			_, _ = rand.NewChaCha8([32]byte{4}).Read(noise)
			put(t, dir, "ibdata1", string(noise))
			seed(t, s, "data", dir)
			taken := func() int64 {
				info, err := os.Stat(imagePath(s.root))
				must(t, err)
				return allocated(info)
			}
			full := taken()
			must(t, s.Remove(t.Context(), "data"))
			closed(t, s)
			for deadline := time.Now().Add(30 * time.Second); taken() > full-int64(len(noise))/2; {
				if time.Now().After(deadline) {
					t.Fatalf("the image took %s, and with its volume removed %s", human(full), human(taken()))
				}
				s = openStore(t, Options{Root: root}) // the kernel frees subvolumes in the background
				time.Sleep(50 * time.Millisecond)
				closed(t, s)
			}
		})
	}
}

// What stands at the mount point and is not slipway's own stays as it is.
func TestForeignMount(t *testing.T) {
	need.Root(t)
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
		need.Root(t)
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
	need.Root(t)
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
