package layers

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"slipway/internal/need"
)

const one = digest.Digest("sha256:1111111111111111111111111111111111111111111111111111111111111111")

// lower makes a layer with everything that a layer may hold.
func lower(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "etc/deep"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "etc/file"), []byte("content"), 0o640))
	must(os.Chown(filepath.Join(dir, "etc/file"), 12, 34))
	must(os.Symlink("/nowhere/../file", filepath.Join(dir, "etc/link")))
	must(unix.Mknod(filepath.Join(dir, "etc/gone"), unix.S_IFCHR, 0)) // a whiteout
	must(unix.Setxattr(filepath.Join(dir, "etc/deep"), "trusted.overlay.opaque", []byte("y"), 0))
	must(os.Chown(filepath.Join(dir, "etc/deep"), 56, 78))
	must(os.Chmod(filepath.Join(dir, "etc/deep"), 0o3775|os.ModeSetgid|os.ModeSticky))
	return dir
}

func lent(lowers ...string) func(context.Context) (Kept, func() error, error) {
	return func(context.Context) (Kept, func() error, error) {
		return Kept{Lowers: lowers, Config: ocispec.ImageConfig{User: "web"}}, nil, nil
	}
}

func TestKeptLayersOutliveTheirSource(t *testing.T) {
	need.Root(t)
	dir, from := t.TempDir(), lower(t)
	kept, err := Keep(t.Context(), dir, one, lent(from))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(from); err != nil {
		t.Fatal(err)
	}
	if kept.Config.User != "web" || len(kept.Lowers) != 1 {
		t.Fatalf("kept %+v", kept)
	}
	at := func(name string) string { return filepath.Join(kept.Lowers[0], name) }
	if data, err := os.ReadFile(at("etc/file")); err != nil || string(data) != "content" {
		t.Errorf("etc/file: %q, %v", data, err)
	}
	for name, want := range map[string]struct {
		mode     uint32
		uid, gid uint32
	}{
		"etc/file": {unix.S_IFREG | 0o640, 12, 34},
		"etc/gone": {unix.S_IFCHR, 0, 0},
		"etc/deep": {unix.S_IFDIR | 0o3775, 56, 78},
	} {
		info, err := os.Lstat(at(name))
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if st.Mode != want.mode || st.Uid != want.uid || st.Gid != want.gid || st.Rdev != 0 {
			t.Errorf("%s: mode %o of %d:%d, want %o of %d:%d", name, st.Mode, st.Uid, st.Gid, want.mode, want.uid, want.gid)
		}
	}
	if target, err := os.Readlink(at("etc/link")); err != nil || target != "/nowhere/../file" {
		t.Errorf("etc/link leads to %q, %v", target, err)
	}
	value := make([]byte, 8)
	if n, err := unix.Getxattr(at("etc/deep"), "trusted.overlay.opaque", value); err != nil || string(value[:n]) != "y" {
		t.Errorf("etc/deep is opaque: %q, %v", value[:max(n, 0)], err)
	}
}

func TestKeepAsksOnce(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if _, err := Keep(t.Context(), dir, one, lent(lower(t))); err != nil {
		t.Fatal(err)
	}
	_, err := Keep(t.Context(), dir, one, func(context.Context) (Kept, func() error, error) {
		return Kept{}, nil, errors.New("asked again")
	})
	if err != nil {
		t.Error(err)
	}
}

// A second file system stands for a second disk: there files are copied.
func TestKeepAcrossFileSystems(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	kept, err := Keep(t.Context(), dir, one, lent(lower(t)))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(filepath.Join(kept.Lowers[0], "etc/file"))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != 12 || info.Mode() != 0o640 {
		t.Errorf("etc/file: %v, %v", info, err)
	}
}

func TestNothingHalfKept(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := Keep(ctx, dir, one, lent(lower(t))); err == nil {
		t.Fatal("kept under a context that had ended")
	}
	if _, err := Find(dir, one); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("found after a failure: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestSweepLeavesWhatIsUsed(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	const two = digest.Digest("sha256:2222222222222222222222222222222222222222222222222222222222222222")
	for _, d := range []digest.Digest{one, two} {
		if _, err := Keep(t.Context(), dir, d, lent(lower(t))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, newPrefix+"half"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(dir, []digest.Digest{two}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(dir, one); err != nil {
		t.Errorf("young layers went: %v", err)
	}
	if err := Sweep(dir, []digest.Digest{two}, 0); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{two.Encoded()}) {
		t.Errorf("left %v", names)
	}
}

func TestDamagedRecordIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, one.Encoded()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, one.Encoded(), configName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(dir, one); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := Find(dir, "sha256:../../etc"); err == nil {
		t.Error("a path was taken for a digest")
	}
}
