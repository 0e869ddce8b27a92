package dockerfile

import (
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// Privilege is a line that asks for more than a build step gets.
type Privilege struct {
	Line int    // 1-based
	Flag string // as a RUN line writes it: "--security=insecure" or "--network=host"
}

// Privileges lists every line that asks for one, whether or not a target needs it.
func (f *File) Privileges() []Privilege {
	var out []Privilege
	for _, s := range f.stages {
		for _, cmd := range s.Commands {
			run, ok := cmd.(*instructions.RunCommand)
			if !ok {
				continue
			}
			line := firstLine(run.Location())
			if instructions.GetSecurity(run) == instructions.SecurityInsecure {
				out = append(out, Privilege{Line: line, Flag: "--security=insecure"})
			}
			if instructions.GetNetwork(run) == instructions.NetworkHost {
				out = append(out, Privilege{Line: line, Flag: "--network=host"})
			}
		}
	}
	return out
}
