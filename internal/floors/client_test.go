package floors

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The client for systems without sandboxes is built of what is there for it, and
// nothing that only Linux has comes into it.
func TestClient(t *testing.T) {
	for _, system := range []string{"darwin", "windows"} {
		cmd := exec.Command("go", "list", "-deps", "./cmd/slipway")
		cmd.Dir, cmd.Env = "../..", append(cmd.Environ(), "GOOS="+system, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		deps := strings.Fields(string(out))
		for _, engine := range []string{"builder", "runner", "internal/network", "internal/supervise", "internal/volume", "internal/layers", "internal/doctor"} {
			if slices.Contains(deps, module+"/"+engine) {
				t.Errorf("the client for %s has %s in it: `GOOS=%s go build ./cmd/slipway` says by whom, once it fails; keep it in files of Linux (//go:build linux && !client)", system, engine, system)
			}
		}
	}
	cmd := exec.Command("go", "build", "-tags", "client", "-o", t.TempDir(), "./cmd/slipway")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\nwhat is missing belongs into cmd/slipway/elsewhere.go, or what asks for it into a file of Linux (//go:build linux && !client)", err, out)
	}
}
