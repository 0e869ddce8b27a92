package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/internal/need"
)

// A full disk is told as such, and when there is room again everything works.
func TestDiskFull(t *testing.T) {
	o := testOptions(t)
	if err := os.Mkdir(o.Root, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", o.Root, "tmpfs", 0, "size=64m,mode=711"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(o.Root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b := open(t, o)
	importBusybox(t, b, "busybox:1")
	ctx := context.Background()
	r := Request{Name: "app", Dir: project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN dd if=/dev/zero of=/big bs=1M count=200\n"})}
	_, err := b.Build(ctx, r)
	var be *BuildError
	switch {
	case err == nil:
		t.Fatal("200 MB fitted into 64")
	case strings.Contains(err.Error(), "idmapped mounts need"):
		need.Have(t, "tmpfs-root", err) // before Linux 6.3 none can be there
	case errors.As(err, &be):
		if !strings.Contains(string(be.LastOutput), "No space left") {
			t.Errorf("%v\n%s", err, be.LastOutput)
		}
	case !errors.Is(err, unix.ENOSPC):
		t.Errorf("a full disk: %v", err)
	}
	build(t, b, Request{Dir: project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN echo room again\n"})})
	ballast := filepath.Join(o.Root, "ballast")
	fill(t, ballast)
	small := Request{Name: "app", Dir: project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN echo small > /s\n"})}
	if _, err := b.Build(ctx, small); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("with no room at all: %v", err)
	} else {
		t.Log(err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	out := build(t, b, small)
	if got := fileIn(t, b, out.Image, "s"); got != "small\n" {
		t.Errorf("/s holds %q", got)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, o)
	if again := build(t, b, small); !again.Cached {
		t.Error("after reopening a step ran")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size > 0; size /= 64 {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
