package supervise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"slipway/internal/layers"
	"slipway/internal/network"
	"slipway/internal/secret"
	"slipway/runner"
)

// Options of a Supervisor.
type Options struct {
	Dir     string           // its state; made when missing
	Runner  *runner.Runner   // makes the containers; the caller closes it after the Supervisor
	Gateway *network.Gateway // the way out, for containers that may use it
	Secrets secret.Resolver  // finds the values of secrets whenever a container starts
	Log     zerolog.Logger
}

// Supervisor keeps the containers of all projects of a root running.
type Supervisor struct {
	o      Options
	state  state
	lock   *os.File
	ctx    context.Context //nolint:containedctx // the supervisor's own life, which no call spans
	cancel context.CancelFunc

	mu       sync.Mutex
	projects map[string]*project
	running  sync.WaitGroup
}

// ErrSupervised is another process that supervises this root already.
var ErrSupervised = errors.New("another process supervises this root")

// Open takes the root's containers over and starts what is to run. It returns
// when it has begun to: a project whose containers do not start is one to be
// mended, and its state says so.
func Open(o Options) (*Supervisor, error) {
	s := &Supervisor{o: o, state: state(o.Dir), projects: map[string]*project{}}
	if err := os.MkdirAll(o.Dir, 0o711); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", o.Dir, err)
	}
	var err error
	if s.lock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	specs, err := s.state.load()
	if err != nil {
		o.Log.Error().Err(err).Msg("a project is not started")
	}
	for _, spec := range specs {
		p := newProject(s, spec.Project)
		s.projects[spec.Project] = p
		s.running.Go(func() {
			if err := p.apply(s.ctx, spec, func(string) {}); err != nil {
				o.Log.Error().Err(err).Str("project", spec.Project).Msg("not all of it runs")
			}
		})
	}
	return s, nil
}

// lockDir takes the lock that the kernel frees however the process ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrSupervised, dir), f.Close())
	}
	return f, nil
}

// Close stops every container, gracefully, and forgets none: the next Open
// starts them again.
func (s *Supervisor) Close() error {
	s.cancel()
	s.running.Wait()
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.projects))
	s.mu.Unlock()
	var stopping sync.WaitGroup
	for _, p := range all {
		stopping.Go(p.stop)
	}
	stopping.Wait()
	return s.lock.Close()
}

// Apply makes a project what spec says. When it returns nil all containers run
// and are well, published ports lead to them, and a restart of the machine
// brings them back. When it returns an error the project is as before, or as near
// to that as could be brought about; the error says which. tell is told of each step.
func (s *Supervisor) Apply(ctx context.Context, spec Spec, tell func(string)) error {
	if err := spec.Check(); err != nil {
		return err
	}
	return s.project(spec.Project).apply(ctx, spec, tell)
}

func (s *Supervisor) project(name string) *project {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.projects[name]
	if p == nil {
		p = newProject(s, name)
		s.projects[name] = p
	}
	return p
}

// Remove stops a project and forgets it. Its volumes stay unless asked for.
func (s *Supervisor) Remove(name string, volumes bool) error {
	if !projectName.MatchString(name) {
		return fmt.Errorf("project %q: a name is small letters, digits, dots, dashes and underscores", name)
	}
	s.mu.Lock()
	p := s.projects[name]
	delete(s.projects, name)
	s.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	// Forgotten first: after a crash in between nothing of it starts again.
	err := s.state.forget(name)
	p.stop()
	err = errors.Join(err, os.RemoveAll(s.state.logs(name, "")), os.RemoveAll(s.state.files(name, "")))
	if volumes {
		err = errors.Join(err, os.RemoveAll(s.state.volume(name, "")))
	}
	return errors.Join(err, s.sweep())
}

// sweep removes layers that no project runs on. Whoever is about to apply a spec
// has kept its layers first, so what is younger than a quarter of an hour stays.
func (s *Supervisor) sweep() error {
	specs, err := s.state.load()
	if err != nil {
		return nil //nolint:nilerr // what a damaged spec runs on is not known: nothing goes
	}
	return layers.Sweep(s.state.layers(), digests(specs), 15*time.Minute)
}

// Status of every project, by name.
func (s *Supervisor) Status() []ProjectStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []ProjectStatus
	for _, name := range slices.Sorted(maps.Keys(s.projects)) {
		all = append(all, s.projects[name].status())
	}
	return all
}

// Restart starts the containers of a project anew, one after the other: all, or
// those named.
func (s *Supervisor) Restart(ctx context.Context, name string, containers []string, tell func(string)) error {
	s.mu.Lock()
	p := s.projects[name]
	s.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return p.restart(ctx, containers, tell)
}
