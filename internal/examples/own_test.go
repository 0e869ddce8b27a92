package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestOwnPipeline: slipway builds its own image from what is committed, and its
// own unit tests pass in it. It compiles slipway without a cache, so it belongs
// to `make soak`.
func TestOwnPipeline(t *testing.T) {
	if os.Getenv("SLIPWAY_SOAK") == "" {
		t.Skip("compiles slipway anew: run it with SLIPWAY_SOAK=1")
	}
	r := newRoot(t, "self")
	dir := filepath.Join(t.TempDir(), "slipway")
	if out, err := exec.Command("git", "clone", "-q", filepath.Join("..", ".."), dir).CombinedOutput(); err != nil {
		t.Fatalf("git clone: %v\n%s", err, out)
	}
	r.want(r.pipeline(0, dir), "passed", "slipway built", "  starts passed", "  validates passed", "unit built", "  unit passed")
}
