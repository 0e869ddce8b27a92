package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/need"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// layersOf are the directories of an image of three layers, topmost first, as
// overlayfs keeps them: the second removes a file and a directory of the first
// and replaces another, the third adds.
func layersOf(t *testing.T) []string {
	t.Helper()
	need.Root(t)
	top := t.TempDir()
	one, two, three := filepath.Join(top, "1"), filepath.Join(top, "2"), filepath.Join(top, "3")
	put(t, one, "srv/db/row", "1")
	put(t, one, "srv/db/removed", "x")
	put(t, one, "srv/db/removed dir/x", "x")
	put(t, one, "srv/db/opaque/old", "x")
	put(t, one, "srv/db/suid", "x")
	must(t, os.Chmod(filepath.Join(one, "srv/db"), 0o750|os.ModeSetgid))
	must(t, os.Chown(filepath.Join(one, "srv/db"), 999, 998))
	must(t, os.Chown(filepath.Join(one, "srv/db/row"), 999, 65534))
	must(t, unix.Chmod(filepath.Join(one, "srv/db/suid"), 0o4755))
	must(t, os.MkdirAll(filepath.Join(one, "var"), 0o755))
	must(t, os.Symlink("/srv", filepath.Join(one, "var/lib"))) // an image's own "/", not the host's
	must(t, os.MkdirAll(filepath.Join(two, "srv/db/opaque"), 0o755))
	must(t, unix.Setxattr(filepath.Join(two, "srv/db/opaque"), "trusted.overlay.opaque", []byte("y"), 0))
	for _, gone := range []string{"removed", "removed dir"} {
		must(t, unix.Mknod(filepath.Join(two, "srv/db", gone), unix.S_IFCHR, 0))
	}
	put(t, two, "srv/db/opaque/new", "x")
	put(t, three, "srv/db/more", "3")
	for _, upper := range []string{two, three} { // a layer has the directories above what it changes
		must(t, os.Chmod(filepath.Join(upper, "srv/db"), 0o750|os.ModeSetgid))
		must(t, os.Chown(filepath.Join(upper, "srv/db"), 999, 998))
	}
	return []string{three, two, one}
}

// lender counts how often an image is lent and given back.
type lender struct {
	dirs            []string
	asked, released int
}

func (l *lender) lend(context.Context) ([]string, func() error, error) {
	l.asked++
	return l.dirs, func() error { l.released++; return nil }, nil
}

// A directory of an image is what a container of it would see, with owners and
// modes, and is read once.
func TestInImage(t *testing.T) {
	eachBackend(t, func(t *testing.T, s *Store) {
		from := &lender{dirs: layersOf(t)}
		image := digest.FromString("image")
		var v Volume
		for range 2 {
			var err error
			v, err = s.Seed(t.Context(), "db", InImage(image, "/var/lib/db", from.lend))
			must(t, err)
		}
		if want := "image " + image.String() + ":/var/lib/db"; v.From != want {
			t.Errorf("it is from %q, want %q", v.From, want)
		}
		c := snapshot(t, s, "db")
		var got []string
		must(t, filepath.WalkDir(c.Dir, func(path string, _ os.DirEntry, err error) error {
			var st unix.Stat_t
			must(t, errors.Join(err, unix.Lstat(path, &st)))
			rel, _ := filepath.Rel(c.Dir, path)
			got = append(got, fmt.Sprintf("%s %o %d:%d", rel, st.Mode&0o7777, st.Uid, st.Gid))
			return nil
		}))
		same(t, "the copy", strings.Join(got, "\n"), strings.Join([]string{
			". 2750 999:998", "more 644 0:0", "opaque 755 0:0", "opaque/new 644 0:0", "row 644 999:65534", "suid 4755 0:0",
		}, "\n"))
		if from.asked != 1 || from.released != 1 {
			t.Errorf("the image was lent %d times and given back %d times, want once", from.asked, from.released)
		}
		if left, err := filepath.Glob(filepath.Join(s.session, "*")); err != nil || len(left) != 2 { // the lock, the copy
			t.Errorf("left in the session: %v (%v)", left, err)
		}
	})
}

// What leads out of an image stays in it, and what is not there is said.
func TestInImageEscapes(t *testing.T) {
	s := newStore(t, PlainCopy)
	dirs := layersOf(t)
	put(t, dirs[2], "etc/inside", "the image's own")
	for name, target := range map[string]string{"up": "../../../../../../../../etc", "root": "/etc", "loop": "loop", "fd": "/proc/self/cwd"} {
		must(t, os.Symlink(target, filepath.Join(dirs[2], name)))
	}
	must(t, unix.Mkfifo(filepath.Join(dirs[2], "fifo"), 0o644))
	put(t, dirs[2], "dev/sub/x", "x")
	must(t, unix.Mknod(filepath.Join(dirs[2], "dev/sub/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	from := &lender{dirs: dirs}
	seedOf := func(dir string) (Volume, error) {
		return s.Seed(t.Context(), "", InImage(digest.FromString("image"), dir, from.lend))
	}
	for _, dir := range []string{"/up", "/root", "/../../../etc", "etc/../etc/."} {
		v, err := seedOf(dir)
		must(t, err)
		if got := get(t, filepath.Join(s.volume(v.ID), treeDir), "inside"); got != "the image's own" {
			t.Errorf("%s: %q", dir, got)
		}
	}
	for dir, words := range map[string][]string{
		"/nowhere": {"no such directory in the image", "/nowhere"}, "/loop": {"/loop"}, "/fd": {"/fd"}, "/fifo": {"is no directory"},
		"/srv/db/row": {"is no directory", "name the directory it is in"}, "/srv/db/removed": {"no such directory"}, "/srv/db/removed dir": {"no such directory"},
		"/dev/sub": {"null is a device"},
	} {
		_, err := seedOf(dir)
		says(t, err, words...)
		if strings.Contains(fmt.Sprint(err), "/proc/self/fd") {
			t.Errorf("%s: the error says how slipway looks: %v", dir, err)
		}
	}
	if _, err := seedOf("/nowhere"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a path that is not there: %v", err)
	}
	if from.asked != from.released {
		t.Error("an image was not given back")
	}
}

// An empty volume begins as the directory that it covers, or as nothing.
func TestOverImage(t *testing.T) {
	s := newStore(t, BtrfsLoop)
	from := &lender{dirs: layersOf(t)}
	for range 2 {
		for dir, want := range map[string]string{
			"/var/lib/db": "more opaque row suid 2750 999:998", "/nowhere/at/all": "755 0:0", "/srv/db/row": "755 0:0", "/srv/db/row/x": "755 0:0", "/var": "lib 755 0:0",
		} {
			v, err := s.Seed(t.Context(), "", OverImage(digest.FromString("image"), dir, from.lend))
			must(t, err)
			c := snapshot(t, s, v.ID)
			entries, err := os.ReadDir(c.Dir)
			must(t, err)
			var st unix.Stat_t
			must(t, unix.Stat(c.Dir, &st))
			var got []string
			for _, e := range entries {
				got = append(got, e.Name())
			}
			got = append(got, fmt.Sprintf("%o", st.Mode&0o7777), fmt.Sprintf("%d:%d", st.Uid, st.Gid))
			if got := strings.Join(got, " "); got != want {
				t.Errorf("over %s: %s, want %s", dir, got, want)
			}
		}
	}
	if from.asked != 5 || from.released != 5 {
		t.Errorf("the image was lent %d times and given back %d times, want 5: once a path", from.asked, from.released)
	}
}

// Older kernels mount layers in another way, to the same end.
func TestOverlayByPath(t *testing.T) {
	dirs := layersOf(t)
	at := filepath.Join(t.TempDir(), "at")
	fd, err := overlayByPath(dirs, at)
	must(t, err)
	defer closeFD(fd)
	byPath := describe(t, fmt.Sprintf("/proc/%d/fd/%d/srv", os.Getpid(), fd))
	if _, err := os.Stat(at); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its mount point stays: %v", err)
	}
	other, err := overlayByFD(dirs)
	if errors.Is(err, errOldOverlay) {
		t.Skip("this kernel has the old way only")
	}
	must(t, err)
	defer closeFD(other)
	same(t, "the layers", byPath, describe(t, fmt.Sprintf("/proc/%d/fd/%d/srv", os.Getpid(), other)))
	_, err = overlayByPath([]string{"/" + strings.Repeat("long/", 1000), "/b"}, at)
	says(t, err, "do not fit a page", "shorter --root")
}
