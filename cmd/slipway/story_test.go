package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"slipway/internal/need"
	"slipway/runner"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"slipway": main})
}

// TestStories runs the command line as its users do: one story a file.
func TestStories(t *testing.T) {
	helpers := requireSandbox(t)
	need.Tool(t, "docker-registry")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("SLIPWAY_ROOT", filepath.Join(e.WorkDir, "root"))
			e.Setenv("SLIPWAY_HELPERS", helpers)
			e.Setenv("SLIPWAY_PROGRESS", "plain")
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			for _, dir := range []string{e.WorkDir, filepath.Dir(e.WorkDir)} { // sandboxes and nobody walk through it
				if err := os.Chmod(dir, 0o755); err != nil {
					return err
				}
			}
			e.Defer(func() { thawAll(t, filepath.Join(e.WorkDir, "root", "runner")) })
			return busyboxTar(filepath.Join(e.WorkDir, "busybox.tar"))
		},
		Condition: kernelHas,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"nobody":   nobody,
			"hidden":   hidden,
			"small":    small,
			"clean":    clean,
			"registry": dockerRegistry,
			"serve":    serveImages,
			"address":  address,
			"capture":  capture,
			"ready":    ready,
			"digest":   digestInto,
			"pipeline": pipelineWith,
		},
	})
}

// kernelHas is the condition tmpfs-root: a root can be on a tmpfs, as from Linux 6.3 on.
func kernelHas(what string) (bool, error) {
	if what != "tmpfs-root" {
		return false, fmt.Errorf("no condition %q", what)
	}
	var u unix.Utsname
	var major, minor int
	if err := unix.Uname(&u); err != nil {
		return false, err
	}
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 3, err
}

// thawAll removes what a story that failed half way has kept.
func thawAll(t *testing.T, dir string) {
	all, err := runner.ListFrozen(context.Background(), dir)
	for _, f := range all {
		err = errors.Join(err, f.Thaw(context.Background()))
	}
	if err != nil {
		t.Error(err)
	}
}

// requireSandbox gives the directory of the helper programs, built by `make
// binaries`. Without root or them the test is skipped, in CI it fails.
func requireSandbox(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	need.Root(t)
	for _, name := range []string{"slipway-sandbox", "slipway-agent", "slipway-runc"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			need.Have(t, "sandbox", fmt.Errorf("%w; run `make build`", err))
		}
	}
	return dir
}

// busyboxTar writes a root file system that is one static busybox.
func busyboxTar(path string) error {
	dir, err := os.MkdirTemp("", "busybox")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	script := `set -e; cd "$0"; chmod 755 .; mkdir -p bin etc tmp root; cp "$(command -v busybox)" bin/busybox
for c in $(bin/busybox --list); do [ -e bin/$c ] || ln -s busybox bin/$c; done; chmod 1777 tmp
printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' > etc/passwd; tar -cf "$1" .`
	out, err := exec.Command("sh", "-c", script, dir, path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a busybox root file system: %w: %s", err, out)
	}
	return nil
}

// exits runs a command and checks its exit code: exits CODE COMMAND…
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// nobody runs a command without privileges.
func nobody(ts *testscript.TestScript, neg bool, args []string) {
	exits(ts, neg, append([]string{args[0], "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, args[1:]...))
}

// hidden runs a command with an empty file system over DIR: hidden CODE DIR COMMAND…
func hidden(ts *testscript.TestScript, neg bool, args []string) {
	script := `mount -t tmpfs -o ro none "$0" && exec "$@"`
	exits(ts, neg, append([]string{args[0], "unshare", "-m", "sh", "-c", script, args[1]}, args[2:]...))
}

// small runs a command with a file system of SIZE over DIR: small CODE SIZE DIR COMMAND…
func small(ts *testscript.TestScript, neg bool, args []string) {
	script := `mkdir -p "$1" && mount -t tmpfs -o mode=755,size="$0" none "$1" && shift && exec "$@"`
	exits(ts, neg, append([]string{args[0], "unshare", "-m", "sh", "-c", script, args[1], args[2]}, args[3:]...))
}

// clean checks that nothing of the story's root is left: no mount, cgroup or process.
func clean(ts *testscript.TestScript, _ bool, _ []string) {
	root := ts.Getenv("SLIPWAY_ROOT")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	ts.Check(err)
	if strings.Contains(string(mounts), root+"/") {
		ts.Fatalf("mounts are left under %s:\n%s", root, mounts)
	}
	for _, pattern := range []string{"/sys/fs/cgroup" + cgroupOf(root), "/sys/fs/cgroup/*" + cgroupOf(root)} {
		left, err := filepath.Glob(pattern)
		ts.Check(err)
		if len(left) > 0 {
			ts.Fatalf("cgroups are left: %v", left)
		}
	}
	entries, err := os.ReadDir(filepath.Join(root, "runner"))
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		ts.Fatalf("%v", err)
	}
	if len(entries) > 0 {
		ts.Fatalf("sandboxes are left: %v", entries)
	}
}
