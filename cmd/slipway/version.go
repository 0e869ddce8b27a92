package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"slipway/builder"
	"slipway/internal/helpers"
)

// versions is what `slipway version --json` prints.
type versions struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	BuildKit string `json:"buildkit"`
	Runtime  string `json:"runtime"` // of build steps and, by the same module, of sandboxes
}

func versionCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which slipway, BuildKit and container runtime this is",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{
				Version: version, Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
				BuildKit: builder.Versions().BuildKit, Runtime: g.runtimeVersion(cmd),
			}
			if g.json {
				return printJSON(os.Stdout, v)
			}
			fmt.Printf("slipway %s (commit %s, %s, %s)\nBuildKit %s\nruntime %s\n", v.Version, v.Commit, v.Go, v.Platform, v.BuildKit, v.Runtime)
			return nil
		},
	}
}

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
