//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"slipway/internal/doctor"
	"slipway/internal/helpers"
	"slipway/internal/network"
	"slipway/internal/supervise"
	"slipway/runner"
)

// liveDir is the state of a root's supervisor.
func (g *globals) liveDir() string { return filepath.Join(g.root, "live") }

func superviseCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "supervise",
		Short: "Keep the containers of this root running, until stopped",
		Long: "Runs the containers of the environments that are delivered to this machine and of\n`slipway up`, and keeps them running. Other commands start it when they need it;\n" +
			"a machine that serves starts it at boot (docs/slipway-supervise.service). It outlives\nevery other slipway: only its own end stops the containers.\n\n" + exitHelp,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.supervise(cmd.Context()) },
	}
	cmd.AddCommand(&cobra.Command{
		Use: "stop", Short: "Stop the supervisor and all its containers; its next start brings them back", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.stopSupervisor(cmd.Context()) },
	})
	return cmd
}

// supervise is the supervisor's whole life.
func (g *globals) supervise(ctx context.Context) (err error) {
	if err := mustBeRoot(); err != nil {
		return err
	}
	if missing := doctor.Cgroups(doctor.Input{Proc: "/proc", Sys: "/sys"}); missing != "" {
		return fmt.Errorf("this machine cannot limit what runs: %s; `slipway doctor` says how to mend it", missing)
	}
	run, err := g.openLiveRunner(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	resolvers, err := network.Resolvers("/etc/resolv.conf")
	if err != nil {
		return err
	}
	gateway, err := network.New(network.Options{Resolvers: resolvers, Log: g.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gateway.Close()) }()
	sup, err := supervise.Open(supervise.Options{Dir: g.liveDir(), Runner: run, Gateway: gateway, Secrets: g.secrets(), Log: g.log})
	if errors.Is(err, supervise.ErrSupervised) {
		return usagef("%w; `slipway supervise stop` ends it", err)
	}
	if err != nil {
		return err
	}
	err = sup.Serve(ctx)
	return errors.Join(err, sup.Close())
}

// openLiveRunner makes the sandboxes of long-running containers, in a cgroup and
// a directory apart from those of tests: neither reaps the other.
func (g *globals) openLiveRunner(ctx context.Context) (*runner.Runner, error) {
	finder, err := g.finder()
	if err != nil {
		return nil, err
	}
	sandbox, err := finder.Find(helpers.Sandbox)
	if err != nil {
		return nil, err
	}
	agent, err := finder.Find(helpers.Agent)
	if err != nil {
		return nil, err
	}
	return runner.Open(ctx, runner.Options{Helper: sandbox, Agent: agent, Root: filepath.Join(g.liveDir(), "sandboxes"), Cgroup: cgroupOf(g.root) + "/live", Log: g.log})
}

func (g *globals) stopSupervisor(ctx context.Context) error {
	c := supervise.Dial(g.liveDir())
	process, err := c.Process()
	if errors.Is(err, supervise.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	defer process.Close()
	if err := c.Stop(ctx); err != nil && !errors.Is(err, supervise.ErrNotRunning) { // it is ending already
		return err
	}
	ended := []unix.PollFd{{Fd: int32(process.Fd()), Events: unix.POLLIN}}
	for deadline := time.Now().Add(supervisorPatience); ; {
		n, err := unix.Poll(ended, 10)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for the supervisor: %w", err)
		case ctx.Err() != nil || time.Now().After(deadline):
			return fmt.Errorf("the supervisor takes too long to end; its log is %s", g.superviseLog())
		}
	}
}

// supervisorPatience is how long a supervisor may take to answer, or to end:
// containers get their grace.
const supervisorPatience = time.Minute

// awaitSupervisor waits until the supervisor answers.
func (g *globals) awaitSupervisor(ctx context.Context, c *supervise.Client) error {
	ctx, cancel := context.WithTimeout(ctx, supervisorPatience)
	defer cancel()
	for {
		_, err := c.Status(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the supervisor takes too long (%w); its log is %s", errors.Join(context.Cause(ctx), err), g.superviseLog())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (g *globals) superviseLog() string { return filepath.Join(g.liveDir(), "supervise.log") }

// supervisor gives a client of this root's supervisor, which is started where
// none runs. It is a session of its own: neither a Ctrl-C nor the end of this
// process reaches it.
func (g *globals) supervisor(ctx context.Context) (*supervise.Client, error) {
	c := supervise.Dial(g.liveDir())
	_, err := c.Status(ctx)
	if !errors.Is(err, supervise.ErrNotRunning) {
		return c, err
	}
	if err := mustBeRoot(); err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find slipway's own program: %w", err)
	}
	if err := os.MkdirAll(g.liveDir(), 0o711); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(g.superviseLog(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := []string{"supervise", "--root", g.root, "--log-level", "info"}
	if g.helpers != "" {
		args = append(args, "--helpers", g.helpers)
	}
	if g.ageIdentity != "" {
		args = append(args, "--age-identity", g.ageIdentity)
	}
	cmd := exec.Command(exe, args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}
	// Whoever comes second finds the root taken and ends; both then speak to the first.
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	await := make(chan error, 1)
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { await <- g.awaitSupervisor(waiting, c) }()
	select {
	case err := <-await:
		return c, err
	case err := <-ended:
		late, stop := context.WithTimeout(ctx, 5*time.Second)
		defer stop()
		if werr := g.awaitSupervisor(late, c); werr != nil {
			return nil, fmt.Errorf("the supervisor did not start (%w); its log is %s", errors.Join(err, werr), g.superviseLog())
		}
		return c, nil
	}
}
