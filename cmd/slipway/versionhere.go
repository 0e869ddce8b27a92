//go:build linux && !client

package main

import (
	"fmt"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"slipway/builder"
	"slipway/internal/helpers"
)

// runtimeVersion asks the runc that build steps use.
func (g *globals) runtimeVersion(cmd *cobra.Command) string {
	finder, err := g.finder()
	if err != nil {
		return err.Error()
	}
	path, err := finder.Find(helpers.Runc)
	if err != nil {
		return "missing: " + err.Error()
	}
	out, err := exec.CommandContext(cmd.Context(), path, "--version").Output()
	if err != nil {
		return fmt.Sprintf("%s does not answer: %v", path, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.Replace(line, " version ", " ", 1)
}

// engineVersions are those of what builds and runs.
func (g *globals) engineVersions(cmd *cobra.Command) (buildkit, runtime string) {
	return builder.Versions().BuildKit, g.runtimeVersion(cmd)
}
