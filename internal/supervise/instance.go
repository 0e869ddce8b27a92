package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"slipway/internal/layers"
	"slipway/internal/network"
	"slipway/pipeline"
	"slipway/runner"
)

// instance is one start of a container.
type instance struct {
	project   *project
	spec      Container
	container *runner.Container
	member    int
	address   network.Address
	check     *runner.Check // nil: there is nothing to look at
	log       *logFile
}

// launch starts a container of a project. ctx covers the start.
func (p *project) launch(ctx context.Context, want *Container, hosts string) (_ *instance, err error) {
	i := &instance{project: p, spec: *want}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start %s: %w", want.Name, err)
			i.close()
		}
	}()
	i.member = -1
	kept, err := layers.Find(p.sup.state.layers(), want.Digest)
	if err != nil {
		return nil, fmt.Errorf("the layers of %s are not here (%w); deliver it again", want.Digest, err)
	}
	service := want.Service
	if service.Environment, err = p.environment(ctx, want); err != nil {
		return nil, err
	}
	binds, err := p.binds(want)
	if err != nil {
		return nil, err
	}
	if i.log, err = openLog(p.sup.state.logs(p.name, want.Name)); err != nil {
		return nil, err
	}
	if i.member, i.address, err = p.member(); err != nil {
		return nil, err
	}
	q := runner.ContainerRequest{
		ID: p.name + "/" + want.Name, Service: service, Binds: binds, Hostname: want.Name,
		Image:  pipeline.Image{Repository: want.Repository, Descriptor: ocispec.Descriptor{Digest: want.Digest}},
		Hosts:  hosts + fmt.Sprintf("%s\t%s\n%s\t%s\n", i.address.IPv4, want.Name, i.address.IPv6, want.Name),
		Rootfs: func(context.Context, pipeline.Image) (runner.Rootfs, error) { return rootfs(kept), nil },
		Join:   func(ctx context.Context, netns string) error { return p.segment.Join(ctx, netns, i.address) },
	}
	if want.Internet && p.sup.o.Gateway != nil {
		q.Egress = p.sup.egress
	}
	if i.container, err = p.sup.o.Runner.Start(ctx, q, i.log); err != nil {
		return nil, err
	}
	i.check = i.container.CheckOf(want.Service, i.reach)
	return i, nil
}

func rootfs(k layers.Kept) runner.Rootfs {
	return runner.Rootfs{Lowers: k.Lowers, Config: k.Config, Healthcheck: k.Healthcheck, Architecture: runtime.GOARCH}
}

// environment is what the spec says, with the secrets found where they are now.
func (p *project) environment(ctx context.Context, c *Container) (map[string]string, error) {
	env := map[string]string{}
	for k, v := range c.Service.Environment {
		env[k] = v
	}
	for _, name := range slices.Sorted(maps.Keys(c.Secrets)) {
		value, err := p.sup.o.Secrets.Value(ctx, name, c.Secrets[name], c.sealed)
		if err != nil {
			return nil, err
		}
		env[name] = value
	}
	return env, nil
}

// sealed gives an encrypted secret as it came with the delivery.
func (c *Container) sealed(name string) ([]byte, error) {
	data, ok := c.Sealed[name]
	if !ok {
		return nil, fmt.Errorf("the encrypted file %s was not delivered; deliver it again", name)
	}
	return data, nil
}

// binds makes the directories and files that a container mounts.
func (p *project) binds(c *Container) ([]runner.Bind, error) {
	var binds []runner.Bind
	for _, m := range c.Mounts {
		source := m.Source
		if m.Volume != "" {
			source = p.sup.state.volume(p.name, m.Volume)
			if err := os.MkdirAll(source, 0o755); err != nil {
				return nil, fmt.Errorf("volume %s: %w", m.Volume, err)
			}
		}
		binds = append(binds, runner.Bind{Source: source, Target: m.Target, ReadOnly: m.ReadOnly})
	}
	dir := p.sup.state.files(p.name, c.Name)
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	for n, target := range slices.Sorted(maps.Keys(c.Files)) {
		path := filepath.Join(dir, fmt.Sprint(n))
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, c.Files[target], 0o644); err != nil {
			return nil, fmt.Errorf("file %s: %w", target, err)
		}
		binds = append(binds, runner.Bind{Source: path, Target: target, ReadOnly: true})
	}
	return binds, nil
}

// egress gives a container a way out, as a test with network: internet has.
func (s *Supervisor) egress(ctx context.Context, netns string) (io.Closer, []netip.Addr, error) {
	link, err := s.o.Gateway.Attach(ctx, netns)
	return link, []netip.Addr{s.o.Gateway.Nameserver()}, err
}

// await waits until the container is well. It is the spec's failure when it ends
// or never is.
func (i *instance) await(ctx context.Context) error {
	if i.check != nil {
		problem, err := i.container.Await(ctx, i.check)
		if err != nil {
			return err
		}
		if problem != "" {
			return i.failure(problem)
		}
	}
	select {
	case <-i.container.Ended():
		e := i.container.Exit()
		if e.Code == 0 && i.spec.Restart != "" && i.spec.Restart != RestartAlways {
			return nil // a one-off that is done
		}
		return i.failure(ended(e))
	default:
		return nil
	}
}

func ended(e runner.Exit) string {
	if e.Code == 0 {
		return "it ended with exit code 0"
	}
	return "it ended: " + e.Reason
}

// failure tells what is wrong with a container, and what it said last.
func (i *instance) failure(what string) error {
	text := fmt.Sprintf("%s %s", i.spec.Name, what)
	if said := i.log.last(20); said != "" {
		text += "\n  it said last:\n    " + strings.ReplaceAll(said, "\n", "\n    ")
	}
	return errors.New(text)
}

// reach connects to a port at the container's own address in the project's
// network, as its neighbours would.
func (i *instance) reach(ctx context.Context, port uint16) error {
	conn, err := i.dial(ctx, port)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (i *instance) dial(ctx context.Context, port uint16) (net.Conn, error) {
	conn, err := network.Dial(ctx, i.container.NetNS(), netip.AddrPortFrom(i.address.IPv4, port))
	if err == nil {
		return conn, nil
	}
	conn, err6 := network.Dial(ctx, i.container.NetNS(), netip.AddrPortFrom(i.address.IPv6, port))
	if err6 == nil {
		return conn, nil
	}
	return nil, err
}

func (i *instance) dialer(port uint16) dialer {
	return func(ctx context.Context) (net.Conn, error) {
		select {
		case <-i.container.Ended():
			return nil, errors.New("it has ended")
		default:
			return i.dial(ctx, port)
		}
	}
}

// setHosts tells a running container its neighbours' names. The file is opened
// as the container sees it, and no link in it is followed out of it.
func (i *instance) setHosts(lines string) error {
	root, err := unix.Open(strings.TrimSuffix(i.container.NetNS(), "ns/net")+"root", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(root) }()
	fd, err := unix.Openat2(root, "etc/hosts", &unix.OpenHow{
		Flags: unix.O_WRONLY | unix.O_TRUNC | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "/etc/hosts")
	_, err = f.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + lines)
	return errors.Join(err, f.Close())
}

// stop asks the container to end, and removes it.
func (i *instance) stop() {
	grace := i.spec.StopGrace
	if grace <= 0 {
		grace = defaultGrace
	}
	i.container.Stop(grace)
	i.close()
}

// close removes what there is of it, at once.
func (i *instance) close() {
	if i.container != nil {
		i.container.Close()
		<-i.container.Ended() // its log is complete
	}
	if i.log != nil {
		i.log.close()
	}
	if i.member >= 0 {
		i.project.free(i.member)
	}
}
