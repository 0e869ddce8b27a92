//go:build linux && !client

package main

import (
	"path"
	"strings"

	"slipway/builder"
)

// lastLines is how much of a failed step's output a result repeats.
const lastLines = 12

// buildFailure tells a failed build whole: place and fault, the Dockerfile's
// lines around it, and the end of what the step printed.
func buildFailure(context string, e *builder.BuildError) string {
	shown := *e
	if shown.File != "" {
		shown.File = path.Join(context, e.File)
	}
	parts := []string{shown.Error()}
	if e.Source != "" {
		parts = append(parts, strings.TrimRight(e.Source, "\n"))
	}
	if out := strings.TrimRight(string(e.LastOutput), "\n"); out != "" {
		lines := strings.Split(out, "\n")
		parts = append(parts, "the step's last output:", indent(strings.Join(lines[max(0, len(lines)-lastLines):], "\n"), "  "))
	}
	return strings.Join(parts, "\n")
}
