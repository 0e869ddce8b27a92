package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"slipway/internal/need"
)

// TestRealGitea takes pushes to a real Gitea all the way to an environment and
// back to the forge; .ci/gitea/ship says what it sees. The slipway is this test program.
func TestRealGitea(t *testing.T) {
	helpers := requireSandbox(t)
	need.Tool(t, "gitea")
	need.Tool(t, "curl")
	need.Tool(t, "busybox")
	slipway := need.Tool(t, "slipway")
	cmd := exec.CommandContext(t.Context(), "../../.ci/gitea/ship", filepath.Join(need.OpenDir(t), "ship"))
	cmd.Env = append(os.Environ(), "SLIPWAY="+slipway, "SLIPWAY_HELPERS="+helpers)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it ends what it started
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
