package builder

import (
	"fmt"
	"os"
	"runtime/debug"

	dockerfileversion "github.com/moby/buildkit/frontend/dockerfile/version"
)

// Environment is what BuildKit wants to find in the process environment; cmd
// sets it before Open. BuildKit has no other way to be told these.
func Environment() map[string]string {
	return map[string]string{
		// Output of a step is shown in full: BuildKit's own limits are 2 MiB and 200 KiB/s.
		"BUILDKIT_STEP_LOG_MAX_SIZE":  "-1",
		"BUILDKIT_STEP_LOG_MAX_SPEED": "-1",
		// Layers are written by our differ, which clamps times; see differ.go.
		"BUILDKIT_DEBUG_FORCE_OVERLAY_DIFF": "false",
	}
}

// checkEnvironment guards the identity of images: without our differ the same
// Dockerfile would give another digest every time, and nothing would say so.
func checkEnvironment() error {
	for k, v := range Environment() {
		if os.Getenv(k) != v {
			return fmt.Errorf("builder: %s is not %q: set builder.Environment() in the process before Open", k, v)
		}
	}
	return nil
}

// Version names the parts a builder is made of.
type Version struct {
	BuildKit   string // module version, "v0.34.2"
	Dockerfile string // version of the Dockerfile language, "1.28"
}

// Versions reads them from the running binary.
func Versions() Version {
	v := Version{BuildKit: "unknown", Dockerfile: dockerfileversion.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/moby/buildkit" {
			v.BuildKit = m.Version
		}
	}
	return v
}
