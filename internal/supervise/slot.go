package supervise

import (
	"context"
	"sync"
	"time"
)

// State is how a container is.
type State string

// The states of a container.
const (
	StateUp         State = "up"         // it runs, and nothing looks at it
	StateHealthy    State = "healthy"    // it runs and its check passes
	StateUnhealthy  State = "unhealthy"  // its check fails; it is started anew
	StateRestarting State = "restarting" // it has ended and is started again in a moment
	StateEnded      State = "ended"      // it has ended, and its restart policy leaves it so
	StateStopped    State = "stopped"
)

// slot is a container's place in its project: whatever instance of it runs.
type slot struct {
	project *project
	spec    Container

	mu       sync.Mutex
	running  *instance // nil: none
	state    State
	since    time.Time
	restarts int
	reason   string
	cancel   context.CancelFunc // ends the watching; nil: nobody watches
	watched  sync.WaitGroup
}

func newSlot(p *project, spec Container, i *instance) *slot {
	s := &slot{project: p, spec: spec}
	s.take(i)
	return s
}

// take makes an instance the one that runs.
func (s *slot) take(i *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.since, s.reason = i, time.Now().UTC(), ""
	s.state = StateUp
	if i.check != nil {
		s.state = StateHealthy
	}
}

func (s *slot) set(state State, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.reason = state, reason
}

func (s *slot) current() *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

// same reports whether what runs is what is wanted, and runs.
func (s *slot) same(want *Container) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running != nil && s.state != StateEnded && s.spec.same(want)
}

// publish takes over what makes no other container: the ports, and its name for people.
func (s *slot) publish(want Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spec = want
}

func (s *slot) drain() time.Duration {
	if s.spec.Drain > 0 {
		return s.spec.Drain
	}
	return defaultDrain
}

// watch begins to keep the container up, unless somebody does already.
func (s *slot) watch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.watched.Go(func() { s.keep(ctx) })
}

// The pauses before restarts: each twice the one before, until a container has
// stayed up for long enough to begin anew.
const (
	firstPause = 100 * time.Millisecond
	longPause  = 30 * time.Second
	stayedUp   = 10 * time.Second
)

// keep starts the container again whenever it ends or is not well, as its policy
// says, until ctx ends.
func (s *slot) keep(ctx context.Context) {
	wait := firstPause
	for {
		began := time.Now()
		code, why, ok := s.awaitEnd(ctx)
		if !ok {
			return
		}
		log := s.project.sup.o.Log.Warn().Str("project", s.project.name).Str("container", s.spec.Name).Str("why", why)
		if s.spec.Restart == RestartNo || s.spec.Restart == RestartOnFailure && code == 0 {
			s.set(StateEnded, why)
			log.Msg("ended")
			return
		}
		if time.Since(began) > stayedUp {
			wait = firstPause
		}
		s.set(StateRestarting, why)
		log.Dur("pause_ms", wait).Msg("started again")
		s.clear()
		for {
			if !pause(ctx, wait) {
				return
			}
			wait = min(2*wait, longPause)
			err := s.begin(ctx)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return
			}
			s.set(StateRestarting, err.Error())
		}
		s.mu.Lock()
		s.restarts++
		s.mu.Unlock()
	}
}

// awaitEnd returns when the running instance has ended, or is not well for so
// long that it must; false when ctx ended first.
func (s *slot) awaitEnd(ctx context.Context) (code int, why string, ok bool) {
	i := s.current()
	if i == nil {
		return 0, "", false
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sick := make(chan string, 1)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel()
	if i.check != nil {
		looking.Go(func() {
			i.container.Watch(ctx, i.check, func(problem string) {
				if problem != "" {
					select {
					case sick <- problem:
					default:
					}
				}
			})
		})
	}
	select {
	case <-i.container.Ended():
		e := i.container.Exit()
		return e.Code, ended(e), true
	case problem := <-sick:
		s.set(StateUnhealthy, problem)
		return 1, "unhealthy: " + problem, true
	case <-ctx.Done():
		return 0, "", false
	}
}

// begin starts an instance of the spec and sends callers to it.
func (s *slot) begin(ctx context.Context) error {
	i, err := s.project.launch(ctx, &s.spec, s.project.hosts(nil))
	if err != nil {
		return err
	}
	if err := i.await(ctx); err != nil {
		i.close()
		return err
	}
	s.take(i)
	s.project.point(s.spec.Ports, i)
	s.project.rename()
	s.watch()
	return nil
}

// clear removes the instance that is no more, and lets callers wait.
func (s *slot) clear() {
	s.mu.Lock()
	i := s.running
	s.running = nil
	s.mu.Unlock()
	if i != nil {
		s.project.point(s.spec.Ports, nil)
		i.stop()
	}
}

// halt ends the container for good. Nobody starts it again.
func (s *slot) halt() {
	s.mu.Lock()
	cancel := s.cancel
	s.cancel = nil
	s.mu.Unlock()
	if cancel != nil {
		cancel()
		s.watched.Wait()
	}
	s.mu.Lock()
	i := s.running
	s.running, s.state = nil, StateStopped
	s.mu.Unlock()
	if i != nil {
		i.stop()
	}
}

func (s *slot) status() ContainerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := ContainerStatus{
		Name: s.spec.Name, Repository: s.spec.Repository, Digest: string(s.spec.Digest), State: s.state, Since: s.since,
		Restarts: s.restarts, Reason: s.reason, Ports: s.spec.Ports,
	}
	if s.running != nil {
		st.PID = s.running.container.PID()
	}
	return st
}
