package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// stepPids is enough for a parallel compiler and stops a fork bomb.
const stepPids = 8192

// stepNetworks is how a step gets its network. There is no entry for the host's:
// even a request that slipped past every other check finds none.
func stepNetworks(o Options) map[pb.NetMode]network.Provider {
	lent := &stepNetwork{dir: stepDir(o.Root), lend: o.StepNetwork}
	return map[pb.NetMode]network.Provider{
		pb.NetMode_UNSET: lent,
		pb.NetMode_NONE:  &stepNetwork{dir: stepDir(o.Root)},
	}
}

// stepNetwork gives each step the namespace it is lent, or a fresh one of its
// own with nothing in it. It is also the one place where BuildKit shows the
// whole runtime spec of a step, so the rest of the hardening happens here.
type stepNetwork struct {
	dir  string
	lend func(context.Context) (StepNet, error)
}

// New implements network.Provider.
func (n *stepNetwork) New(ctx context.Context, _ string, _ network.NamespaceOptions) (network.Namespace, error) {
	var net StepNet
	if n.lend != nil {
		var err error
		if net, err = n.lend(ctx); err != nil {
			return nil, err
		}
	}
	ns := &stepNamespace{net: net, shape: shapeOf(ctx)}
	if err := ns.writeResolvConf(n.dir); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// Close implements network.Provider.
func (n *stepNetwork) Close() error { return nil }

type stepNamespace struct {
	net    StepNet
	shape  *shape
	resolv string // path of the step's resolv.conf
}

func (n *stepNamespace) writeResolvConf(dir string) error {
	f, err := os.CreateTemp(dir, "resolv.conf-")
	if err != nil {
		return err
	}
	n.resolv = f.Name()
	var text strings.Builder
	for _, s := range n.net.Nameservers {
		text.WriteString("nameserver " + s + "\n")
	}
	_, err = f.WriteString(text.String())
	return errors.Join(err, f.Chmod(0o644), f.Close())
}

// Set implements network.Namespace.
func (n *stepNamespace) Set(s *specs.Spec) error {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(x specs.LinuxNamespace) bool {
		return x.Type == specs.NetworkNamespace
	})
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: n.net.Path})

	var mounts []specs.Mount
	for _, m := range s.Mounts {
		switch {
		case m.Destination == "/etc/resolv.conf":
			m.Source = n.resolv
		case m.Destination == "/sys":
			// sysfs shows a network namespace and can be mounted only by its
			// owner, which is the host's user namespace. An empty directory
			// keeps the mount point, so that the layer equals anyone else's.
			m = specs.Mount{Destination: "/sys", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "nodev", "ro", "size=0k", "mode=555"}}
		case strings.HasPrefix(m.Destination, "/sys/"):
			continue
		}
		mounts = append(mounts, m)
	}
	s.Mounts = mounts
	if s.Linux.Seccomp != nil && !n.shape.foreign {
		s.Linux.Seccomp.Architectures = s.Linux.Seccomp.Architectures[:min(1, len(s.Linux.Seccomp.Architectures))]
	}
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	limit := int64(stepPids)
	s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	return nil
}

// Sample implements network.Namespace; nobody reads the samples.
func (n *stepNamespace) Sample() (*resourcestypes.NetworkSample, error) { return nil, nil }

// Close gives the network back.
func (n *stepNamespace) Close() error {
	var errs []error
	if n.net.Close != nil {
		errs = append(errs, n.net.Close())
	}
	if n.resolv != "" {
		errs = append(errs, os.Remove(filepath.Clean(n.resolv)))
	}
	return errors.Join(errs...)
}
