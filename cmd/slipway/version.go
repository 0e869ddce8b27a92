package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"
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
			}
			v.BuildKit, v.Runtime = g.engineVersions(cmd)
			if g.json {
				return printJSON(os.Stdout, v)
			}
			fmt.Printf("slipway %s (commit %s, %s, %s)\nBuildKit %s\nruntime %s\n", v.Version, v.Commit, v.Go, v.Platform, v.BuildKit, v.Runtime)
			return nil
		},
	}
}
