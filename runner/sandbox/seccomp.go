package sandbox

import (
	"fmt"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
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

type seccompProfile = *configs.Seccomp

// newSeccomp is Docker's own profile for exactly these capabilities, for the
// machine's own architecture: compiling it for the foreign ones as well takes
// libseccomp ten times as long, and a call by any of them is then refused whole.
func newSeccomp() (seccompProfile, error) {
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities()}}}
	profile, err := seccomp.GetDefaultProfile(spec)
	if err != nil {
		return nil, fmt.Errorf("the seccomp profile: %w", err)
	}
	if len(profile.Architectures) > 1 {
		profile.Architectures = profile.Architectures[:1]
	}
	converted, err := specconv.SetupSeccomp(profile)
	if err != nil {
		return nil, fmt.Errorf("the seccomp profile: %w", err)
	}
	return converted, nil
}
