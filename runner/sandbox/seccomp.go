package sandbox

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"slipway/runner/wire"
)

// filters are the compiled seccomp filters of sandboxes, in sealed files.
type filters struct {
	durable  *os.File
	volatile *os.File // the same, and calls that make sure of data on disk return at once
}

// newFilters compiles Docker's own profile for exactly these capabilities. It is
// for the machine's own architecture: a call by any of
// the foreign ones is refused whole, and compiling for them as well would take
// libseccomp ten times as long.
func newFilters() (f filters, err error) {
	names := slices.Sorted(maps.Keys(wire.Capabilities()))
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: names}}}
	profile, err := seccomp.GetDefaultProfile(spec)
	if err != nil {
		return f, fmt.Errorf("the seccomp profile: %w", err)
	}
	program, err := compile(profile)
	if err != nil {
		return f, fmt.Errorf("compile the seccomp profile: %w", err)
	}
	if f.durable, err = sealed("slipway-filter", bytes.NewReader(program), 0o444); err != nil {
		return f, err
	}
	f.volatile, err = sealed("slipway-filter", bytes.NewReader(append(withoutSync(), program...)), 0o444)
	return f, err
}

func (f filters) of(s *wire.Sandbox) *os.File {
	if s.Volatile {
		return f.volatile
	}
	return f.durable
}
