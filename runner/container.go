package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"slipway/pipeline"
	"slipway/runner/wire"
)

// ContainerRequest asks for a command that runs until it is stopped.
type ContainerRequest struct {
	ID    string // for the operator's log
	Image pipeline.Image
	// Service is how it runs, in Compose's meaning: a command replaces the image's
	// own, an entrypoint both. Image, EnvFile, Volumes and DependsOn are the
	// caller's to have dealt with.
	Service  pipeline.Service
	Rootfs   func(context.Context, pipeline.Image) (Rootfs, error)
	Binds    []Bind
	Secrets  map[string][]byte // files of /run/secrets
	Hostname string            // empty: that of every sandbox
	Hosts    string            // lines for its /etc/hosts
	// Volatile says that nothing it writes is wanted after it, not even in its
	// binds: fsync(2) and its like return at once. It is so for every test.
	Volatile bool
	// Join connects it to a network by the path of its network namespace, before
	// the command starts. nil: it has a loopback device and no more.
	Join   func(ctx context.Context, netns string) error
	Egress func(ctx context.Context, netns string) (io.Closer, []netip.Addr, error) // as in Request
}

// Container is a sandbox whose command runs. The caller closes it.
type Container struct {
	s      *Sandbox
	nonce  wire.Nonce
	output *output
	ended  chan struct{} // closed when the command is
	exit   Exit          // set before that
}

// Start makes a sandbox, starts its command and streams the command's output to
// out. A command that cannot be started is a container that has ended; an error
// means that slipway could make none. ctx covers the start only.
func (r *Runner) Start(ctx context.Context, q ContainerRequest, out io.Writer) (*Container, error) {
	req := Request{
		ID: q.ID, Image: q.Image, Rootfs: q.Rootfs, Binds: q.Binds, Secrets: q.Secrets, Egress: q.Egress,
		Test: pipeline.Test{
			Environment: q.Service.Environment, User: q.Service.User, WorkingDir: q.Service.WorkingDir,
			Tmpfs: q.Service.Tmpfs, Resources: q.Service.Resources,
		},
		argv:     func(config ocispec.ImageConfig) []string { return serviceArgv(q.Service, config) },
		hostname: q.Hostname, hosts: q.Hosts, durable: !q.Volatile, join: q.Join,
	}
	s, err := r.Prepare(ctx, req)
	if err != nil {
		return nil, err
	}
	c, err := s.start(out)
	if err != nil {
		s.Close()
		return nil, err
	}
	return c, nil
}

// serviceArgv is Docker's rule.
func serviceArgv(s pipeline.Service, config ocispec.ImageConfig) []string {
	entrypoint, command := config.Entrypoint, config.Cmd
	if s.Entrypoint != nil {
		entrypoint, command = s.Entrypoint, nil
	}
	if s.Command != nil {
		command = s.Command
	}
	return append(append([]string{}, entrypoint...), command...)
}

// start runs the sandbox's main command until somebody stops it.
func (s *Sandbox) start(out io.Writer) (*Container, error) {
	s.used = true
	output, w, err := newOutput(out, 0)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", s.req.ID, err)
	}
	x := s.req.exec(s.root.Config)
	x.Resolv = s.resolv
	news, err := s.talk.begin(x, w)
	drop(w)
	if err != nil {
		<-output.done //nolint:errcheck // its error is a consequence of this one
		return nil, fmt.Errorf("run %s: the sandbox broke: %w", s.req.ID, err)
	}
	c := &Container{s: s, nonce: x.Nonce, output: output, ended: make(chan struct{})}
	begun := make(chan error, 1)
	go c.wait(news, begun)
	return c, <-begun
}

// wait takes in what the agent says until the command has ended. It tells begun
// when the first instruction ran, or none ever will.
func (c *Container) wait(news <-chan wire.Body, begun chan<- error) {
	defer close(c.ended)
	for {
		select {
		case body := <-news:
			switch b := body.(type) {
			case *wire.Started:
				begun <- nil
				continue
			case *wire.Refused:
				c.exit = Exit{Code: int(b.Exit), Reason: c.s.whyRefused(b.Reason)}
				begun <- nil
			case *wire.Done:
				c.exit = Exit{Code: int(b.Exit), Reason: whyEnded(b)}
				c.measure()
			}
		case <-c.s.talk.ended:
			if len(news) > 0 {
				continue // what it said before its end counts
			}
			c.exit = Exit{Code: 128 + int(unix.SIGKILL), Reason: "its sandbox was ended"}
			c.measure()
			select {
			case begun <- fmt.Errorf("run %s: the sandbox broke: %w", c.s.req.ID, errSilent):
			default:
			}
			_ = c.output.r.SetReadDeadline(time.Now().Add(drainLimit))
		}
		if err := errors.Join(<-c.output.done, c.output.store.finish()); err != nil && !c.s.frozen.Load() {
			c.s.runner.opts.Log.Warn().Err(err).Str("container", c.s.req.ID).Msg("some output was lost")
		}
		return
	}
}

// measure asks whether the memory limit ended it.
func (c *Container) measure() {
	ctx, cancel := context.WithTimeout(context.Background(), removeLimit)
	defer cancel()
	reply, err := c.s.runner.helper.call(ctx, wire.Call{Op: wire.Measure, ID: c.s.id})
	if err != nil || reply.Counts == nil {
		return // it is being removed
	}
	if reply.Counts.OOMKills > 0 && c.exit.Code != 0 {
		c.exit.Reason = outOfMemory(complete(c.s.req.Test.Resources, c.s.runner.opts.Defaults).Memory)
	}
	if reply.Counts.Disk != "" {
		c.exit.Reason = "stopped: " + reply.Counts.Disk
	}
}

// Ended is closed when the command has ended by itself or was stopped.
func (c *Container) Ended() <-chan struct{} { return c.ended }

// Exit says how it ended, once Ended is closed.
func (c *Container) Exit() Exit { return c.exit }

// PID is its agent's on this machine, for whoever looks at it from outside:
// /proc/PID/root is what it sees. Valid while the container lives.
func (c *Container) PID() int { return c.s.made.PID }

// NetNS is the path of its network namespace. It is valid while the container lives.
func (c *Container) NetNS() string { return c.s.netns() }

// Config is the configuration of its image.
func (c *Container) Config() ocispec.ImageConfig { return c.s.root.Config }

// Signal sends a signal to the command.
func (c *Container) Signal(n unix.Signal) error {
	return c.s.talk.send(&wire.Signal{Nonce: c.nonce, Number: int32(n)})
}

// Stop asks the command to end with its image's stop signal (SIGTERM where it
// names none), and kills what is left after grace.
func (c *Container) Stop(grace time.Duration) {
	t := time.NewTimer(grace)
	defer t.Stop()
	if grace > 0 && c.Signal(stopSignal(c.s.root.Config.StopSignal)) == nil {
		select {
		case <-c.ended:
			return
		case <-t.C:
		}
	}
	c.s.kill()
	<-c.ended
}

func stopSignal(name string) unix.Signal {
	if n := unix.SignalNum(strings.ToUpper(name)); n != 0 {
		return n
	}
	if n := unix.SignalNum("SIG" + strings.ToUpper(name)); n != 0 {
		return n
	}
	var n int
	if _, err := fmt.Sscanf(name, "%d", &n); err == nil && n > 0 && n < 65 {
		return unix.Signal(n)
	}
	return unix.SIGTERM
}

// Close kills what is left of it and removes it, in the background, as a
// Sandbox's Close does.
func (c *Container) Close() { c.s.Close() }
