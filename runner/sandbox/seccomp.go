package sandbox

import (
	"bytes"
	"fmt"
	"os"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"slipway/runner/wire"
)

// capabilities are Docker's defaults without NET_RAW (raw sockets), MKNOD
// (device files) and AUDIT_WRITE. All of them count inside the sandbox's user
// namespace only.
func capabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
	}
}

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
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities()}}}
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
