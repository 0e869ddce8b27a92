package volume

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/internal/need"

	"golang.org/x/sys/unix"
)

func TestSeedAndCopies(t *testing.T) {
	eachBackend(t, func(t *testing.T, s *Store) {
		dir := sample(t)
		v := seed(t, s, "shop/testdata", dir)
		if v.ID != sum(t, dir).digest.Encoded() || v.Files != 12 || !slices.Equal(v.Names, []string{"shop/testdata"}) {
			t.Errorf("volume %+v", v)
		}
		c := snapshot(t, s, "shop/testdata")
		same(t, "a copy", describe(t, c.Dir), describe(t, dir))
		if got, want := sum(t, c.Dir), sum(t, dir); got != want {
			t.Errorf("the copy's tree is %v, the seed's %v", got, want)
		}
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(c.Dir, "sparse"), &st))
		if st.Blocks*512 >= st.Size {
			t.Error("the hole of a sparse file is filled")
		}

		put(t, c.Dir, "sub/mysql/ibdata1", "other")
		must(t, os.Remove(filepath.Join(c.Dir, "a file")))
		put(t, c.Dir, "new", "by the first")
		second := snapshot(t, s, v.ID)
		same(t, "a second copy", describe(t, second.Dir), describe(t, dir))
		must(t, c.Release())
		must(t, c.Release())
		if _, err := os.Stat(c.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Error("a released copy is still there")
		}
		same(t, "a copy whose brother is gone", describe(t, second.Dir), describe(t, dir))

		put(t, dir, "a file", "changed")
		w := seed(t, s, "shop/testdata", dir)
		if w.ID == v.ID || !slices.Equal(w.Names, []string{"shop/testdata"}) {
			t.Errorf("a changed seed is %v %v", w.ID, w.Names)
		}
		if old, err := s.Find(v.ID); err != nil || len(old.Names) != 0 {
			t.Errorf("the old content: %v %v", old.Names, err)
		}
		put(t, dir, "a file", "content")
		must(t, unix.Setxattr(filepath.Join(dir, "a file"), "user.note", []byte("kept\x00whole"), 0))
		if again := seed(t, s, "", dir); again.ID != v.ID {
			t.Errorf("the old content again is %s, was %s", again.ID, v.ID)
		}
	})
}

func TestEmpty(t *testing.T) {
	eachBackend(t, func(t *testing.T, s *Store) {
		c, err := s.Empty(t.Context(), CopyOptions{})
		must(t, err)
		put(t, c.Dir, "x", "1")
		other, err := s.Empty(t.Context(), CopyOptions{})
		must(t, err)
		if entries, err := os.ReadDir(other.Dir); err != nil || len(entries) > 0 {
			t.Errorf("an empty volume holds %v (%v)", entries, err)
		}
	})
}

func TestEverythingGoesAtClose(t *testing.T) {
	for _, b := range preference() {
		t.Run(string(b), func(t *testing.T) {
			root := hostFor(t, b)
			s := openStore(t, Options{Root: root, Backend: b})
			v := seed(t, s, "data", sample(t))
			snapshot(t, s, "data")
			closed(t, s)
			nothingMounted(t, root)

			s = openStore(t, Options{Root: root})
			if s.Backend() != b {
				t.Errorf("opened again it is %s", s.Backend())
			}
			if all := sessions(t, s); len(all) != 1 {
				t.Errorf("sessions %v, want the one that is open", all)
			}
			got, err := s.Find("data")
			must(t, err)
			if got.ID != v.ID {
				t.Errorf("after Close and Open it is %s, was %s", got.ID, v.ID)
			}
			c := snapshot(t, s, "data")
			if sum(t, c.Dir).digest != v.Digest {
				t.Error("its content changed")
			}
		})
	}
}

// A directory is not read again unless something in it changed.
func TestSeedKnowsAgain(t *testing.T) {
	s := newStore(t, PlainCopy)
	dir := sample(t)
	seed(t, s, "a", dir)
	settle(t, dir)
	v := seed(t, s, "a", dir) // read once more: the first time it was too fresh to be remembered
	fd, err := openDir(dir)
	must(t, err)
	defer closeFD(fd)
	f, err := look(t.Context(), fd)
	must(t, err)
	if id, ok := s.known(keyOf("directory", dir, f.sum)); !ok || id != v.ID {
		t.Fatalf("remembered as %q, want %s", id, v.ID)
	}
	for name, change := range map[string]func() error{
		"content": func() error { return os.WriteFile(filepath.Join(dir, "a file"), []byte("CONTENT"), 0o644) },
		"mode":    func() error { return os.Chmod(filepath.Join(dir, "a file"), 0o600) },
		"owner":   func() error { return os.Chown(filepath.Join(dir, "a file"), 3, 3) },
		"xattr":   func() error { return unix.Setxattr(filepath.Join(dir, "a file"), "user.more", []byte("1"), 0) },
		"time put back": func() error {
			old := time.Date(2020, 2, 2, 2, 2, 2, 2000, time.UTC)
			return errors.Join(os.WriteFile(filepath.Join(dir, "a file"), []byte("Content"), 0o644), os.Chtimes(filepath.Join(dir, "a file"), old, old))
		},
		"new name": func() error { return os.WriteFile(filepath.Join(dir, "b"), nil, 0o644) },
	} {
		before := seed(t, s, "a", dir)
		must(t, change())
		if after := seed(t, s, "a", dir); after.ID == before.ID {
			t.Errorf("%s changed, the volume did not", name)
		}
	}
}

// settle waits until a change now has another time than the last one had.
func settle(t *testing.T, dir string) {
	t.Helper()
	fd, err := openDir(dir)
	must(t, err)
	defer closeFD(fd)
	for {
		f, err := look(t.Context(), fd)
		must(t, err)
		if f.settled() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestSeedRefuses(t *testing.T) {
	s := newStore(t, PlainCopy)
	dir := sample(t)
	must(t, os.Symlink("/etc", filepath.Join(dir, "out")))
	must(t, os.Symlink("../..", filepath.Join(dir, "up")))
	for _, c := range []struct{ name, path, want string }{
		{"nothing there", "missing", "no such file"},
		{"a file", "a file", "is no directory"},
		{"a symlink out", "out", "leads out of"},
		{"a symlink up", "up", "leads out of"},
		{"a path up", "../sample", "leads out of"},
	} {
		_, err := s.Seed(t.Context(), "x", Directory(dir, c.path))
		says(t, err, "x", c.want)
	}
	_, err := s.Seed(t.Context(), "-x", Directory(dir, "."))
	says(t, err, "no name of a volume")

	l, err := net.Listen("unix", filepath.Join(dir, "mysqld.sock"))
	must(t, err)
	_, err = s.Seed(t.Context(), "x", Directory(dir, "."))
	says(t, err, "mysqld.sock is a socket", "remove it")
	must(t, l.Close())
	must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, 0x103))
	_, err = s.Seed(t.Context(), "x", Directory(dir, "."))
	says(t, err, "null is a device")

	if all, err := s.List(); err != nil || len(all) > 0 {
		t.Errorf("a refused seed made %v (%v)", names(all), err)
	}
	if left, err := os.ReadDir(s.session); err != nil || len(left) != 1 {
		t.Errorf("a refused seed left %v (%v), want the lock alone", left, err)
	}
}

// Everything that matters changes the digest of a tree; times do not.
func TestHashTree(t *testing.T) {
	need.Root(t)
	file := func(dir string) string { return filepath.Join(dir, "a file") }
	changes := map[string]func(dir string) error{
		"content":       func(d string) error { return os.WriteFile(file(d), []byte("Content"), 0o644) },
		"longer":        func(d string) error { return os.Truncate(file(d), 8) },
		"mode":          func(d string) error { return os.Chmod(file(d), 0o600) },
		"set-id":        func(d string) error { return unix.Chmod(file(d), 0o4644) },
		"owner":         func(d string) error { return os.Chown(file(d), 1, 0) },
		"group":         func(d string) error { return os.Chown(file(d), 0, 1) },
		"mode of root":  func(d string) error { return os.Chmod(d, 0o711) },
		"xattr":         func(d string) error { return unix.Setxattr(file(d), "user.note", []byte("x"), 0) },
		"xattr gone":    func(d string) error { return unix.Removexattr(file(d), "user.note") },
		"name":          func(d string) error { return os.Rename(file(d), file(d)+"s") },
		"new directory": func(d string) error { return os.Mkdir(filepath.Join(d, "n"), 0o755) },
		"symlink": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "dangling")), os.Symlink("nowherE", filepath.Join(d, "dangling")))
		},
		"symlink's owner": func(d string) error { return os.Lchown(filepath.Join(d, "dangling"), 5, 7) },
		"hard link cut": func(d string) error {
			hard := filepath.Join(d, "sub/hard")
			return errors.Join(os.Remove(hard), os.WriteFile(hard, []byte("content"), 0o644), unix.Setxattr(hard, "user.note", []byte("kept\x00whole"), 0))
		},
		"kind": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "pipe")), os.WriteFile(filepath.Join(d, "pipe"), nil, 0o640))
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			dir := sample(t)
			before := sum(t, dir)
			must(t, change(dir))
			if sum(t, dir).digest == before.digest {
				t.Error("the digest is the same")
			}
		})
	}
	dir := sample(t)
	before := sum(t, dir)
	must(t, os.Chtimes(file(dir), time.Now(), time.Now()))
	if sum(t, dir) != before {
		t.Error("a new time makes a new digest")
	}
	if got := sum(t, sample(t)); got != before {
		t.Error("the same tree elsewhere has another digest")
	}
}

func TestTooDeep(t *testing.T) {
	s := newStore(t, PlainCopy)
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", maxDepth+2)), 0o755))
	_, err := s.Seed(t.Context(), "x", Directory(dir, "."))
	says(t, err, "nested")
}

func TestCanceled(t *testing.T) {
	s := newStore(t, PlainCopy)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	_, err := s.Seed(ctx, "x", Directory(sample(t), "."))
	if !errors.Is(err, stop) {
		t.Errorf("canceled with %v", err)
	}
}
