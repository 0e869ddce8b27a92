// Package need says what becomes of a test on a machine that lacks something:
// skipped on a laptop, failed where SLIPWAY_REQUIRE names the thing, so that CI
// cannot pass by skipping. It refuses to be imported by anything but tests.
package need

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Have ends the test when something is missing: it fails where SLIPWAY_REQUIRE,
// a list with commas, holds name or "all", and is skipped elsewhere.
func Have(tb testing.TB, name string, missing error) {
	tb.Helper()
	if missing == nil {
		return
	}
	required := strings.Split(os.Getenv("SLIPWAY_REQUIRE"), ",")
	if slices.Contains(required, name) || slices.Contains(required, "all") {
		tb.Fatalf("SLIPWAY_REQUIRE names %s: %v", name, missing)
	}
	tb.Skipf("needs %s: %v", name, missing)
}

// Root asks for a test that runs as root.
func Root(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		Have(tb, "root", errors.New("not root"))
	}
}

// Tool asks for a program on PATH and gives its path.
func Tool(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	Have(tb, name, err)
	return path
}

// OpenDir is a temporary directory that every user can walk to, as the users of
// build steps and sandboxes must.
func OpenDir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	for at := dir; at != filepath.Clean(os.TempDir()) && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// Run runs the tests of a package with a temporary directory of its own, which
// is removed with what they, and processes they killed, left in it.
func Run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "slipway-test-")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Setenv("TMPDIR", dir))
	}
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // a mount that is left makes it fail: leave that to see
	return m.Run()
}
