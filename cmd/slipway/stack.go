//go:build linux && !client

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"slipway/builder"
	"slipway/internal/capacity"
	"slipway/internal/doctor"
	"slipway/internal/engine"
	"slipway/internal/helpers"
	"slipway/internal/network"
	"slipway/internal/schedule"
	"slipway/internal/store"
	"slipway/internal/volume"
	"slipway/runner"
)

// stack is an opened root: the lock, the records, BuildKit and, where asked
// for, the sandboxes. Whoever opens it closes it.
type stack struct {
	root    string
	log     zerolog.Logger
	store   *store.Store
	builder *builder.Builder
	runner  *runner.Runner
	volumes *volume.Store
	gateway *network.Gateway
	machine *schedule.Machine
	ahead   engine.Ahead
	unlock  func()

	keeping sync.Mutex // held while the tests that are kept change
}

// openOptions say which parts of a stack a command needs.
type openOptions struct {
	command  string // told to whoever waits for the root
	sandbox  bool
	volumes  bool
	parallel int
	remote   *builder.Remote
}

// mustBeRoot is the clear word for those who are not.
func mustBeRoot() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return usagef("slipway builds and tests as root for now (rootless comes later); run it with sudo, or see `slipway doctor`")
}

func (g *globals) finder() (helpers.Finder, error) {
	if g.helpers != "" {
		return helpers.Finder{Beside: g.helpers}, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return helpers.Finder{}, fmt.Errorf("find slipway's own program: %w", err)
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return helpers.Finder{}, fmt.Errorf("find slipway's own program: %w", err)
	}
	return helpers.Finder{Embedded: embedded(), Beside: filepath.Dir(exe), Root: g.root}, nil
}

// open takes the root and opens what opt asks for.
func (g *globals) open(ctx context.Context, opt openOptions) (_ *stack, err error) {
	if err := mustBeRoot(); err != nil {
		return nil, err
	}
	if missing := doctor.Cgroups(doctor.Input{Proc: "/proc", Sys: "/sys"}); missing != "" {
		return nil, fmt.Errorf("this machine cannot limit what runs: %s; `slipway doctor` says how to mend it", missing)
	}
	s := &stack{root: g.root, log: g.log}
	if s.machine, s.ahead, err = openMachine(opt.parallel); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.unlock, err = g.lock(ctx, opt.command); err != nil {
		return nil, err
	}
	if s.store, err = store.Open(g.root); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(tempDir(g.root)); err != nil { // what an import that was killed left
		return nil, fmt.Errorf("clear the temporary directory: %w", err)
	}
	finder, err := g.finder()
	if err != nil {
		return nil, err
	}
	group := cgroupOf(g.root)
	resolvers, err := network.Resolvers("/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	if s.gateway, err = network.New(network.Options{Resolvers: resolvers, Ready: 2, Log: g.log}); err != nil {
		return nil, err
	}
	if err := s.openVolumes(ctx, g, opt.volumes); err != nil { // before the runner, whose helper sees the mounts of this moment
		return nil, err
	}
	if opt.sandbox {
		if s.runner, err = g.openRunner(ctx, finder, group); err != nil {
			return nil, err
		}
	}
	runc, err := finder.Find(helpers.Runc)
	if err != nil {
		return nil, err
	}
	for name, value := range builder.Environment() {
		if err := os.Setenv(name, value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	if err := os.Setenv("TMPDIR", builder.TempDir(filepath.Join(g.root, "builder"))); err != nil {
		return nil, fmt.Errorf("set TMPDIR: %w", err)
	}
	started := time.Now()
	s.builder, err = builder.Open(ctx, builder.Options{
		Root: filepath.Join(g.root, "builder"), Runc: runc, Cgroup: group + "/build", Registries: forBuilder(g.registries),
		DockerConfig: dockerConfig(), Remote: opt.remote, Parallel: buildSteps(opt.parallel), StepNetwork: s.stepNetwork, Log: g.log,
	})
	g.log.Debug().Dur("took_ms", time.Since(started)).Msg("BuildKit opened")
	if err == nil {
		err = s.giveBack(ctx)
	}
	return s, err
}

// serveName is the command that holds a root for as long as it lives.
const serveName = "slipway serve"

// serverPatience is how long a server may take to end, whose socket does not answer.
const serverPatience = 10 * time.Second

// lock takes the root, waiting for who has it, but for a server that serves: that may
// be months.
func (g *globals) lock(ctx context.Context, command string) (unlock func(), err error) {
	waiting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	return store.Lock(waiting, g.root, command, func(h store.Holder) {
		held := usagef("`%s` (process %d) holds %s; stop it, or use another root (--root DIR, SLIPWAY_ROOT)", h.Command, h.PID, g.root)
		switch c, _ := (serverFlags{}).client(g); { // asking a socket never fails
		case h.Command != serveName || command == serveName:
			g.tellWaiting(h)
		case c != nil:
			stop(held)
		default:
			g.tellWaiting(h)
			time.AfterFunc(serverPatience, func() { stop(held) })
		}
	})
}

// openVolumes opens the store of named volumes, or else removes what a crash
// left of it.
func (s *stack) openVolumes(ctx context.Context, g *globals, wanted bool) (err error) {
	o := volume.Options{Root: g.root, Log: g.log}
	if !wanted {
		return volume.Reap(ctx, o)
	}
	s.volumes, err = volume.Open(ctx, o)
	return err
}

func (g *globals) openRunner(ctx context.Context, finder helpers.Finder, group string) (*runner.Runner, error) {
	sandbox, err := finder.Find(helpers.Sandbox)
	if err != nil {
		return nil, err
	}
	agent, err := finder.Find(helpers.Agent)
	if err != nil {
		return nil, err
	}
	return runner.Open(ctx, runner.Options{Helper: sandbox, Agent: agent, Root: filepath.Join(g.root, "runner"), Cgroup: group + "/test", Log: g.log})
}

// tempDir is for files that mean nothing once their command has ended.
func tempDir(root string) string { return filepath.Join(root, "tmp") }

// stepNetwork lends a build step a network of its own with a way out.
func (s *stack) stepNetwork(ctx context.Context) (builder.StepNet, error) {
	ns, err := s.gateway.Namespace(ctx)
	if err != nil {
		return builder.StepNet{}, err
	}
	return builder.StepNet{Path: ns.Path(), Nameservers: []string{s.gateway.Nameserver().String()}, Close: ns.Close}, nil
}

func (s *stack) close() error {
	if s.runner != nil {
		s.runner.Clear() // it gives the builder's layers back
	}
	var errs [2]error
	var wg sync.WaitGroup
	if s.builder != nil {
		wg.Go(func() { errs[0] = s.builder.Close() })
	}
	wg.Go(func() { errs[1] = s.closeRunner() })
	wg.Wait()
	return errors.Join(errs[0], errs[1], s.leave())
}

// closeRunner ends the helper, and then the store of volumes, whose mounts the
// helper sees.
func (s *stack) closeRunner() error {
	var errs []error
	if s.runner != nil {
		errs = append(errs, s.runner.Close())
	}
	if s.volumes != nil {
		errs = append(errs, s.volumes.Close())
	}
	return errors.Join(errs...)
}

// leave gives up the network and the root.
func (s *stack) leave() error {
	var errs []error
	if s.gateway != nil {
		errs = append(errs, s.gateway.Close())
	}
	if s.unlock != nil {
		s.unlock()
	}
	return errors.Join(errs...)
}

// cgroupOf names the cgroup of a root, so that two roots never reap each other.
func cgroupOf(root string) string {
	sum := sha256.Sum256([]byte(root))
	return "/slipway-" + hex.EncodeToString(sum[:4])
}

// remoteBuilder reads --builder: an address of a buildkitd, TLS client files in
// the directory --builder-certs as docker buildx names them.
func remoteBuilder(address, certs string) (*builder.Remote, error) {
	if address == "" {
		if certs != "" {
			return nil, usagef("--builder-certs needs --builder tcp://HOST:PORT")
		}
		return nil, nil
	}
	if !strings.HasPrefix(address, "unix://") && !strings.HasPrefix(address, "tcp://") {
		return nil, usagef("--builder %s: give unix:///run/buildkit/buildkitd.sock or tcp://HOST:PORT", address)
	}
	r := &builder.Remote{Address: address}
	if certs != "" {
		r.CA, r.Cert, r.Key = filepath.Join(certs, "ca.pem"), filepath.Join(certs, "cert.pem"), filepath.Join(certs, "key.pem")
	}
	return r, nil
}

// openMachine is what all tasks of this process share: the cores, and of the
// memory all but an eighth. That eighth is for slipway, the file cache, and what
// is prepared ahead: for each core one sandbox, and at most half of it.
func openMachine(parallel int) (*schedule.Machine, engine.Ahead, error) {
	has, err := capacity.Read("/")
	if err != nil {
		return nil, engine.Ahead{}, err
	}
	ahead := engine.Ahead{Sandboxes: max(2, int(has.CPUs)), Memory: has.Memory / 16}
	return schedule.New(schedule.Share{CPUs: has.CPUs, Memory: has.Memory / 8 * 7}, parallel), ahead, nil
}

// buildSteps is how many steps BuildKit runs at once, in all builds together.
func buildSteps(parallel int) int {
	if parallel > 0 {
		return parallel
	}
	return max(2, runtime.NumCPU())
}

// forBuilder gives the builder the settings of registries.
func forBuilder(all map[string]registrySettings) map[string]builder.Registry {
	out := map[string]builder.Registry{}
	for host, r := range all {
		out[host] = builder.Registry(r)
	}
	return out
}
