package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/need"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// The tests mount real file systems from image files in temporary directories.
// Those of Btrfs and Reflink, which want a host on such a file system, live in a
// copy of an outer store.

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	os.Exit(m.Run())
}

// requireBackend is what a machine needs for it.
func requireBackend(tb testing.TB, b Backend) {
	tb.Helper()
	switch b {
	case PlainCopy:
	case XFSLoop:
		_, missing := findProgram("mkfs.xfs")
		need.Have(tb, "xfs", errors.Join(loopMissing(), missing))
	default:
		_, missing := findProgram("mkfs.btrfs")
		need.Have(tb, "btrfs", errors.Join(loopMissing(), missing))
	}
}

// eachBackend runs a test with a store of every backend.
func eachBackend(t *testing.T, test func(t *testing.T, s *Store)) {
	for _, b := range preference() {
		t.Run(string(b), func(t *testing.T) {
			need.Root(t)
			test(t, newStore(t, b))
		})
	}
}

// hostFor is a directory where a store of that backend can be made.
func hostFor(tb testing.TB, b Backend) string {
	tb.Helper()
	requireBackend(tb, b)
	if b != Btrfs && b != Reflink {
		return tb.TempDir()
	}
	outer := newStore(tb, BtrfsLoop)
	c, err := outer.Empty(tb.Context(), CopyOptions{})
	must(tb, err)
	return c.Dir
}

func newStore(tb testing.TB, b Backend) *Store {
	tb.Helper()
	return openStore(tb, Options{Root: hostFor(tb, b), Backend: b})
}

// openStore closes what it opens, and sees to it that nothing stays mounted.
func openStore(tb testing.TB, o Options) *Store {
	tb.Helper()
	need.Root(tb)
	o.Log = zerolog.New(zerolog.NewTestWriter(tb))
	o.Size = max(o.Size, minSize)
	s, err := Open(tb.Context(), o)
	must(tb, err)
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// closed closes a store before its time.
func closed(tb testing.TB, s *Store) {
	tb.Helper()
	must(tb, s.Close())
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// says fails unless err contains every word.
func says(tb testing.TB, err error, words ...string) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("no error, want one that says %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			tb.Errorf("error %q does not say %q", err, w)
		}
	}
}

func put(tb testing.TB, dir, name, content string) {
	tb.Helper()
	path := filepath.Join(dir, name)
	must(tb, os.MkdirAll(filepath.Dir(path), 0o755))
	must(tb, os.WriteFile(path, []byte(content), 0o644))
}

func get(tb testing.TB, dir, name string) string {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	must(tb, err)
	return string(data)
}

// sample is a directory with one of everything.
func sample(tb testing.TB) string {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "sample")
	put(tb, dir, "a file", "content")
	put(tb, dir, "sub/mysql/ibdata1", strings.Repeat("page", 5000))
	put(tb, dir, "sub/not-utf8-\xff\xfe", "odd")
	put(tb, dir, "sub/empty", "")
	must(tb, os.Symlink("/etc/passwd", filepath.Join(dir, "sub/link")))
	must(tb, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	must(tb, os.Link(filepath.Join(dir, "a file"), filepath.Join(dir, "sub/hard")))
	must(tb, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o640))
	must(tb, os.Mkdir(filepath.Join(dir, "closed"), 0o700))
	must(tb, unix.Setxattr(filepath.Join(dir, "a file"), "user.note", []byte("kept\x00whole"), 0))
	must(tb, os.Chown(filepath.Join(dir, "sub"), 999, 998))
	must(tb, os.Chown(filepath.Join(dir, "sub/mysql/ibdata1"), 999, 999))
	must(tb, os.Lchown(filepath.Join(dir, "dangling"), 5, 6))
	must(tb, os.Chmod(filepath.Join(dir, "sub"), 0o2750|os.ModeSetgid))
	must(tb, unix.Chmod(filepath.Join(dir, "sub/empty"), 0o4711))
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	must(tb, err)
	_, err = sparse.WriteAt([]byte("end"), 3<<20)
	must(tb, errors.Join(err, sparse.Truncate(4<<20), sparse.Close()))
	old := time.Date(2020, 2, 2, 2, 2, 2, 2000, time.UTC)
	must(tb, os.Chtimes(filepath.Join(dir, "a file"), old, old))
	must(tb, os.Chtimes(filepath.Join(dir, "sub"), old, old))
	return dir
}

// describe lists a tree the way another program sees it, times included.
func describe(tb testing.TB, dir string) string {
	tb.Helper()
	script := `find . -type d -printf '%P %y %m %U:%G %T@\n' -o -printf '%P %y %m %U:%G %n %l %T@\n' | sed '1s/ [^ ]*$//' | LC_ALL=C sort; find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("describe %s: %v\n%s", dir, err, out)
	}
	return string(out)
}

func same(tb testing.TB, what, got, want string) {
	tb.Helper()
	if got == want {
		return
	}
	g, w := bytes.Split([]byte(got), []byte("\n")), bytes.Split([]byte(want), []byte("\n"))
	for i := range max(len(g), len(w)) {
		var a, b []byte
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if !bytes.Equal(a, b) {
			tb.Errorf("%s, line %d:\n got %q\nwant %q", what, i+1, a, b)
		}
	}
}

func sum(tb testing.TB, dir string) tree {
	tb.Helper()
	fd, err := openDir(dir)
	must(tb, err)
	defer closeFD(fd)
	t, err := hashTree(tb.Context(), fd)
	must(tb, err)
	return t
}

// loopDevice is that of a store's image; empty when there is none.
func loopDevice(tb testing.TB, root string) string {
	tb.Helper()
	dev, err := findLoop(imagePath(filepath.Join(root, "volumes")))
	must(tb, err)
	if dev == nil {
		return ""
	}
	defer dev.Close()
	return dev.Name()
}

// nothingMounted fails when a store left its mount or its loop device. Another
// process that starts a container has a copy of all mounts for a moment.
func nothingMounted(tb testing.TB, root string) {
	tb.Helper()
	at, err := mountedAt(filepath.Join(root, "volumes", dataDir))
	must(tb, err)
	if at != "" {
		tb.Errorf("left behind: a mount of %s", at)
	}
	for deadline := time.Now().Add(20 * time.Second); loopDevice(tb, root) != ""; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("left behind: loop device %s", loopDevice(tb, root))
		}
	}
}

// sessions are what open Stores and dead ones have in the store.
func sessions(tb testing.TB, s *Store) []string {
	tb.Helper()
	found, err := filepath.Glob(filepath.Join(s.data, sessionsDir, "*"))
	must(tb, err)
	return found
}

func snapshot(tb testing.TB, s *Store, ref string) *Copy {
	tb.Helper()
	c, err := s.Snapshot(tb.Context(), ref, CopyOptions{})
	must(tb, err)
	return c
}

func seed(tb testing.TB, s *Store, name, dir string) Volume {
	tb.Helper()
	v, err := s.Seed(tb.Context(), name, Directory(dir, "."))
	must(tb, err)
	return v
}

func names(all []Volume) (ids []string) {
	for _, v := range all {
		ids = append(ids, fmt.Sprint(short(v.ID), v.Names))
	}
	return ids
}
