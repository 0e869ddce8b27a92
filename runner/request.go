package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/pipeline"
	"slipway/runner/wire"
)

// Request is one attempt at a test.
type Request struct {
	ID    string // for the operator's log, such as the task's ID
	Image pipeline.Image
	Test  pipeline.Test
	// Rootfs lends the layers of exactly that image. It is called once.
	Rootfs func(context.Context, pipeline.Image) (Rootfs, error)
	Binds  []Bind
	// Secrets are files of /run/secrets, on a tmpfs, readable by the test's user
	// alone. They are in no argument list and in no environment.
	Secrets map[string][]byte
	Out     string // host directory that receives what the test leaves in /out; empty: nothing is kept
	// Egress lets the sandbox out: it wires the network namespace at the given
	// path and says which resolvers serve it. It is called before the command
	// starts, and closed after everything in the sandbox is dead. nil: the
	// sandbox has a loopback device and no more. The test's services get out too.
	Egress func(ctx context.Context, netns string) (io.Closer, []netip.Addr, error)
	// Services start beside the test, in a private network that Network makes.
	Services []Service
	Network  func(context.Context) (Network, error)

	// Of a container: what it runs, its name, its neighbours and its network.
	argv     func(ocispec.ImageConfig) []string
	hostname string
	hosts    string
	durable  bool
	join     func(ctx context.Context, netns string) error
}

// Rootfs is an image, ready to be mounted. Files of owners beyond 65535 show up
// as nobody's in a sandbox: its ids end there.
type Rootfs struct {
	Lowers       []string // directories, topmost first; never written to
	Config       ocispec.ImageConfig
	Healthcheck  *pipeline.Healthcheck // the image's own, which is Docker's and no part of OCI's; nil: none
	Architecture string                // GOARCH; empty when unknown
	Release      func() error          // called once, after the sandbox is removed; may be nil
}

// Bind lends a file or directory of the host to a sandbox. Owners below 65536
// keep their numbers on both sides.
type Bind struct {
	Source   string // absolute, on the host
	Target   string // absolute, in the sandbox
	ReadOnly bool
}

// check refuses what no sandbox could be made of.
func (q *Request) check() error {
	if q.Rootfs == nil {
		return errors.New("a request needs a Rootfs")
	}
	for _, b := range q.Binds {
		if !filepath.IsAbs(b.Source) || !path.IsAbs(b.Target) {
			return fmt.Errorf("bind %s to %s: both must be absolute paths", b.Source, b.Target)
		}
	}
	for _, t := range q.Test.Tmpfs {
		if !path.IsAbs(t.Target) || path.Clean(t.Target) == "/" || max(t.UID, t.GID) > 65535 {
			return fmt.Errorf("tmpfs %s of %d:%d: its path must be absolute and no root, its owner below 65536", t.Target, t.UID, t.GID)
		}
	}
	if len(q.Services) > 0 && q.Network == nil {
		return errors.New("services need a Network")
	}
	for name := range q.Secrets {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("secret %q: its name must be a plain file name", name)
		}
	}
	return nil
}

// hostname is the same in every sandbox, so that a test's output does not
// change from run to run.
const hostname = "slipway"

// sandbox says what the helper has to make.
func (q *Request) sandbox(root Rootfs, defaults pipeline.Resources) *wire.Sandbox {
	l := complete(q.Test.Resources, defaults)
	s := &wire.Sandbox{
		Lowers: root.Lowers, Secrets: len(q.Secrets) > 0, Hostname: first(q.hostname, hostname),
		Limits: wire.Limits{CPUs: l.CPUs, Memory: l.Memory, Pids: l.Pids, Disk: l.Disk}, Volatile: !q.durable,
	}
	for _, b := range q.Binds {
		s.Binds = append(s.Binds, wire.Bind(b))
	}
	for _, t := range q.Test.Tmpfs {
		m := wire.Tmpfs{Target: t.Target, Size: t.Size, Mode: t.Mode, UID: int(t.UID), GID: int(t.GID), Exec: t.Exec}
		if m.Size == 0 {
			m.Size = l.Memory
		}
		if m.Mode == 0 {
			m.Mode = 0o1777
		}
		s.Tmpfs = append(s.Tmpfs, m)
	}
	return s
}

// exec is the request as the agent needs it.
func (q *Request) exec(config ocispec.ImageConfig) *wire.Exec {
	args := argv(q.Test, config)
	if q.argv != nil {
		args = q.argv(config)
	}
	x := &wire.Exec{
		Args: args, Hosts: q.hosts, Env: environment(config.Env, q.Test.Environment),
		User: first(q.Test.User, config.User), Dir: directory(q.Test.WorkingDir, config.WorkingDir), Out: "/out",
	}
	for name, data := range q.Secrets {
		x.Secrets = append(x.Secrets, wire.Secret{Name: name, Data: data})
	}
	return x
}

// argv: the test's command runs as it is, behind the test's own entrypoint
// where it names one; a test without a command runs what the image would.
func argv(t pipeline.Test, config ocispec.ImageConfig) []string {
	switch {
	case t.Entrypoint != nil:
		return append(append([]string{}, t.Entrypoint...), t.Command...)
	case len(t.Command) > 0:
		return t.Command
	}
	return append(append([]string{}, config.Entrypoint...), config.Cmd...)
}

// environment is the image's own with the test's over it, each name once.
func environment(image []string, over map[string]string) []string {
	at := map[string]int{}
	var env []string
	set := func(name, entry string) {
		if i, ok := at[name]; ok {
			env[i] = entry
			return
		}
		at[name] = len(env)
		env = append(env, entry)
	}
	for _, e := range image {
		if name, _, ok := strings.Cut(e, "="); ok {
			set(name, e)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(over)) {
		set(name, name+"="+over[name])
	}
	return env
}

// directory is the test's, relative to the image's.
func directory(test, image string) string {
	if !path.IsAbs(image) {
		image = "/" + image
	}
	if path.IsAbs(test) {
		return path.Clean(test)
	}
	return path.Join(image, test)
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
