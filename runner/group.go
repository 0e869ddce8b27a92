package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"

	"slipway/pipeline"
)

// Service is a container that runs beside a test and is reached by its name.
type Service struct {
	Name string // as tests and other services call it
	// Service is how it runs; its Environment holds what its EnvFile says, and its
	// Volumes are in Binds. DependsOn names others of the same test.
	Service pipeline.Service
	Image   pipeline.Image
	Rootfs  func(context.Context, pipeline.Image) (Rootfs, error)
	Binds   []Bind
	Log     io.Writer // what it says; may be nil
}

// group are the services of one test, and their network.
type group struct {
	runner  *Runner
	test    string // ID of the test
	network Network
	egress  func(context.Context, string) (io.Closer, []netip.Addr, error) // the test's way out; nil: none
	members []*member
	hosts   string
	ctx     context.Context //nolint:containedctx // the life of the group, which spans the test's Prepare and Exec
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
	ready   chan struct{} // closed when all are ready, or one has failed
	readyAt int64         // of CLOCK_MONOTONIC; set before that

	mu     sync.Mutex
	failed *serviceFailure
	broken error
	over   bool // the test has ended: what ends now ends because of us
}

// member is one service.
type member struct {
	Service
	index     int
	tail      tail
	started   chan struct{} // closed when its command runs
	healthy   chan struct{} // closed when it is ready
	completed chan struct{} // closed when it has ended with 0
	awaited   bool          // another waits for its completion
	looked    bool          // another waits for its health
	container *Container    // set before started is closed; for Freeze
}

// serviceFailure is the user's: a service that did not do what it should.
type serviceFailure struct{ name, what string }

func (f *serviceFailure) Error() string { return "service " + f.name + " " + f.what }

// The conditions of depends_on, in Compose's words.
const (
	serviceHealthy   = "service_healthy"
	serviceCompleted = "service_completed_successfully"
)

// startGroup begins to start a test's services. ctx covers the making of the
// network only.
func (r *Runner) startGroup(ctx context.Context, q *Request) (*group, error) {
	g := &group{runner: r, test: q.ID, egress: q.Egress, ready: make(chan struct{})}
	names, byName := []string{}, map[string]*member{}
	for i, s := range q.Services {
		m := &member{Service: s, index: i, started: make(chan struct{}), healthy: make(chan struct{}), completed: make(chan struct{})}
		g.members, names, byName[s.Name] = append(g.members, m), append(names, s.Name), m
	}
	for _, m := range g.members {
		for name, condition := range m.Service.Service.DependsOn {
			on := byName[name]
			if on == nil {
				return nil, fmt.Errorf("service %s depends on %s, which does not run beside this test", m.Name, name)
			}
			on.awaited = on.awaited || condition == serviceCompleted
			on.looked = on.looked || condition == serviceHealthy
		}
	}
	var err error
	if g.network, err = q.Network(ctx); err != nil {
		return nil, err
	}
	if g.hosts, err = g.network.hosts(names); err != nil {
		return nil, errors.Join(err, g.network.Close())
	}
	g.ctx, g.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	for _, m := range g.members {
		g.running.Go(func() { g.run(m, byName) })
	}
	g.running.Go(g.awaitAll)
	return g, nil
}

// awaitAll closes ready when every service is.
func (g *group) awaitAll() {
	for _, m := range g.members {
		select {
		case <-m.healthy:
		case <-m.completed:
		case <-g.ready:
			return
		case <-g.ctx.Done():
			return
		}
		if m.awaited {
			select {
			case <-m.completed:
			case <-g.ready:
				return
			case <-g.ctx.Done():
				return
			}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settle()
}

// settle is called under the lock.
func (g *group) settle() {
	select {
	case <-g.ready:
	default:
		g.readyAt = monotonic()
		close(g.ready)
	}
}

// run starts one service when it may, and watches it to its end.
func (g *group) run(m *member, others map[string]*member) {
	if !g.awaitNeeds(m, others) {
		return
	}
	var log io.Writer = &m.tail
	if m.Log != nil {
		log = io.MultiWriter(&m.tail, &capped{to: m.Log, left: maxOutput})
	}
	c, err := g.runner.Start(g.ctx, ContainerRequest{
		ID: g.test + "/" + m.Name, Image: m.Image, Service: m.Service.Service, Rootfs: m.Rootfs, Binds: m.Binds,
		Hostname: m.Name, Hosts: g.hosts, Volatile: true, Egress: g.egress,
		Join: func(ctx context.Context, netns string) error { return g.network.Join(ctx, netns, m.index) },
	}, log)
	if err != nil {
		g.fail(nil, fmt.Errorf("start the service %s: %w", m.Name, err))
		return
	}
	defer c.Close()
	m.container = c
	close(m.started)
	check := c.CheckOf(m.Service.Service, g.network.dialer(c.NetNS(), m.index))
	if check == nil {
		close(m.healthy)
	} else if !m.awaited || m.looked {
		g.running.Go(func() { g.awaitHealth(m, c, check) })
	}
	select {
	case <-c.Ended():
		g.end(m, c.Exit(), check)
	case <-g.ctx.Done():
	}
}

// awaitNeeds waits for the conditions of depends_on.
func (g *group) awaitNeeds(m *member, others map[string]*member) bool {
	for name, condition := range m.Service.Service.DependsOn {
		wait := others[name].started
		switch condition {
		case serviceHealthy:
			wait = others[name].healthy
		case serviceCompleted:
			wait = others[name].completed
		}
		select {
		case <-wait:
		case <-g.ctx.Done():
			return false
		}
	}
	return true
}

func (g *group) awaitHealth(m *member, c *Container, check *Check) {
	problem, err := c.Await(g.ctx, check)
	switch {
	case err != nil: // the group is over
	case problem != "":
		g.fail(&serviceFailure{m.Name, problem}, nil)
	default:
		select {
		case <-c.Ended(): // told by run
		default:
			close(m.healthy)
		}
	}
}

// end is what the end of a service means: success of one that others wait for,
// or that nobody could look at; else a failure.
func (g *group) end(m *member, e Exit, check *Check) {
	if e.Code == 0 && (m.awaited || check == nil) && (!m.looked || m.isHealthy()) {
		close(m.completed)
		return
	}
	when := "before the test began"
	select {
	case <-g.ready:
		when = "while the test ran"
	default:
	}
	why := e.Reason
	if e.Code == 0 {
		why = "exit code 0"
	}
	g.fail(&serviceFailure{m.Name, fmt.Sprintf("ended %s: %s", when, why)}, nil)
}

func (m *member) isHealthy() bool {
	select {
	case <-m.healthy:
		return true
	default:
		return false
	}
}

// fail notes the first thing that went wrong, and ends all others.
func (g *group) fail(f *serviceFailure, broken error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over || g.failed != nil || g.broken != nil {
		return
	}
	g.failed, g.broken = f, broken
	g.settle()
	if f != nil {
		g.cancel(f)
	} else {
		g.cancel(broken)
	}
}

// wait returns when the services are ready or one has failed.
func (g *group) wait(ctx context.Context) (*serviceFailure, error) {
	select {
	case <-g.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return g.verdict()
}

func (g *group) verdict() (*serviceFailure, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed, g.broken
}

// finish says that the test has ended: services may.
func (g *group) finish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
}

// shownLines is how much of each service's log a failed test shows.
const shownLines = 20

// show writes the end of the services' logs: of one, or of all.
func (g *group) show(out io.Writer, only string) {
	for _, m := range g.members {
		if only != "" && only != m.Name {
			continue
		}
		words := m.tail.lines(shownLines)
		switch {
		case words == "" && only == "":
			continue
		case words == "":
			words = "(it said nothing)"
		}
		fmt.Fprintf(out, "\n[slipway: service %s, last lines]\n%s\n", m.Name, words) // a log that cannot be written is told of elsewhere
	}
}

// close ends all services; their sandboxes are removed in the background.
func (g *group) close() error {
	g.finish()
	g.cancel(errGroupOver)
	g.running.Wait()
	return g.network.Close()
}

var errGroupOver = errors.New("the test is over")
