package registry

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// requireTool skips where an independent tool is missing on a laptop, and fails
// where SLIPWAY_REQUIRE names it.
func requireTool(t *testing.T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err == nil {
		return path
	}
	required := strings.Split(os.Getenv("SLIPWAY_REQUIRE"), ",")
	if slices.Contains(required, tool) || slices.Contains(required, "all") {
		t.Fatalf("SLIPWAY_REQUIRE names %s: %v", tool, err)
	}
	t.Skipf("needs %s: %v", tool, err)
	return ""
}
