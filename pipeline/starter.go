package pipeline

import (
	"fmt"
	"path"
	"strings"
)

// Init writes a first .ci.yml for the Dockerfiles found, given as slash-separated
// paths relative to where it will lie; none makes one for a Dockerfile to be written.
func Init(dockerfiles []string) []byte {
	if len(dockerfiles) == 0 {
		dockerfiles = []string{"Dockerfile"}
	}
	var out strings.Builder
	out.WriteString(`version: 1
images:
`)
	for _, d := range dockerfiles {
		fmt.Fprintf(&out, "  %s:\n    build: %s\n", "app", path.Dir(d))
	}
	return []byte(out.String())
}
