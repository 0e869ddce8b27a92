package builder

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A directory's mode reaches the image also when BuildKit has a copy of the
// context with another one.
func TestDirectoryModeChanges(t *testing.T) {
	b := fresh(t)
	r := Request{Dir: project(t, map[string]string{
		"Dockerfile": "FROM busybox:1\nCOPY data /data\n", "data/in/file": "x",
		".dockerignore": "left\n", "left/out": "x",
	})}
	for _, mode := range []os.FileMode{0o755, 0o775, 0o700} {
		if err := os.Chmod(filepath.Join(r.Dir, "data/in"), mode); err != nil {
			t.Fatal(err)
		}
		if got := modeIn(t, b, build(t, b, r), "data/in"); got != mode {
			t.Errorf("mode %o in the image, want %o", got, mode)
		}
	}
	if err := os.Chmod(filepath.Join(r.Dir, "left"), 0o700); err != nil {
		t.Fatal(err)
	}
	if !build(t, b, r).Cached {
		t.Error("an ignored directory's mode had a step run again")
	}
}

func modeIn(t *testing.T, b *Builder, out Output, path string) os.FileMode {
	t.Helper()
	lent, err := b.Rootfs(context.Background(), out.Image, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lent.Release(); err != nil {
			t.Error(err)
		}
	}()
	for _, dir := range lent.Lowers {
		fi, err := os.Lstat(filepath.Join(dir, path))
		if err == nil {
			return fi.Mode().Perm()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Fatalf("no %s in the image", path)
	return 0
}

// A path that is missing is the user's fault also where a RUN line mounts it.
func TestMissingMountSource(t *testing.T) {
	b := fresh(t)
	_, err := b.Build(context.Background(), Request{Name: "app", Dir: project(t, map[string]string{
		"Dockerfile": "FROM busybox:1\nRUN --mount=type=bind,source=nowhere,target=/x true\n",
	})})
	var be *BuildError
	if !errors.As(err, &be) || be.Line != 2 || !strings.Contains(be.Message, "nowhere") {
		t.Errorf("got %v", err)
	}
}
