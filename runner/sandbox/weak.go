//go:build weak

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// without are the defences to leave off, with a value where one is needed. They
// stand, one a line, in a file beside the root; the hostile suite writes it. This
// file is in no program that is shipped: there is no switch to be found by
// whoever gets that far.
func (h *helper) without() (map[string]string, error) {
	text, err := os.ReadFile(h.cfg.Root + ".weak")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	off := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		off[name] = value
	}
	return off, nil
}

// weaken takes off limits, and what is mounted from outside.
func (h *helper) weaken(b *box, s *wire.Sandbox, r *cgroups.Resources) error {
	off, err := h.without()
	for name, take := range map[string]func() error{
		"memory limit": func() error { r.Memory, r.MemorySwap = -1, -1; return nil },
		"swap limit":   func() error { r.MemorySwap = -1; return nil },
		"pids limit":   func() error { *r.PidsLimit = -1; return nil },
		"cpu limit":    func() error { r.CpuQuota = -1; return nil },
		"disk watch":   func() error { s.Limits.Disk = math.MaxInt64; return nil },
		"device rules": func() error {
			r.Devices = []*devices.Rule{{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "rwm", Allow: true}}
			return nil
		},
		"nodev": func() error {
			return unix.MountSetattr(unix.AT_FDCWD, b.target, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NODEV})
		},
		"tmpfs size": func() error {
			return unix.Mount("", filepath.Join(b.target, "dev/shm"), "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=1g")
		},
	} {
		if _, ok := off[name]; ok {
			err = errors.Join(err, take())
		}
	}
	return err
}

// weakenProcess takes off namespaces, on the thread that is about to clone. The
// agent is told the rest.
func (h *helper) weakenProcess(p *os.ProcAttr, argv *[]string) error {
	off, err := h.without()
	if err != nil {
		return err
	}
	for name, value := range off {
		*argv = append(*argv, wire.WeakArg+name)
		switch name {
		case "user namespace":
			p.Sys.Cloneflags &^= unix.CLONE_NEWUSER
			p.Sys.UidMappings, p.Sys.GidMappings = nil, nil
		case "ipc namespace":
			p.Sys.Cloneflags &^= unix.CLONE_NEWIPC
		case "network namespace":
			p.Sys.Cloneflags &^= unix.CLONE_NEWNET
			err = join(value)
		case "shut agent":
			p.Files[wire.ExeFD], err = h.openAgent()
		}
		if err != nil {
			return fmt.Errorf("take off the %s: %w", name, err)
		}
	}
	return nil
}

func join(netns string) error {
	fd, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer dropFD(fd)
	return unix.Setns(fd, unix.CLONE_NEWNET)
}

// openAgent is a file of the agent that everyone may read and write.
func (h *helper) openAgent() (*os.File, error) {
	fd, err := unix.MemfdCreate("open-agent", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("open-agent", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "open-agent")
	src, err := os.Open(h.cfg.Agent)
	if err != nil {
		return nil, err
	}
	defer drop(src)
	if _, err := io.Copy(f, src); err != nil {
		return nil, err
	}
	return f, f.Chmod(0o777)
}
