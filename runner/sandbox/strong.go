//go:build !weak

package sandbox

import (
	"os"

	"github.com/opencontainers/cgroups"

	"slipway/runner/wire"
)

// weaken and weakenProcess change nothing: every sandbox has every defence. Only
// the hostile suite's own build (tag weak) can take one off, to show what it is
// good for.
func (h *helper) weaken(*box, *wire.Sandbox, *cgroups.Resources) error { return nil }

func (h *helper) weakenProcess(*os.ProcAttr, *[]string) error { return nil }
