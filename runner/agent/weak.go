//go:build weak

package agent

import (
	"os"
	"slices"

	"slipway/runner/wire"
)

// off reports whether the hostile suite has switched a defence off for this
// sandbox. This file is in no program that is shipped.
func off(name string) bool { return slices.Contains(os.Args, wire.WeakArg+name) }
