package supervise

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"slipway/internal/network"
)

// project is what runs of one spec.
type project struct {
	sup  *Supervisor
	name string

	change sync.Mutex // one change at a time

	mu      sync.Mutex
	spec    Spec
	problem string // why the last change failed; empty: it did not
	segment *network.Segment
	slots   map[string]*slot // by container name
	doors   map[string]*door // by address on the host
	members []bool           // addresses of the segment that are taken
}

func newProject(s *Supervisor, name string) *project {
	return &project{sup: s, name: name, spec: Spec{Project: name}, slots: map[string]*slot{}, doors: map[string]*door{}}
}

// apply is Supervisor.Apply.
func (p *project) apply(ctx context.Context, spec Spec, tell func(string)) (err error) {
	p.change.Lock()
	defer p.change.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.problem = ""
		if err != nil {
			p.problem = err.Error()
		}
	}()
	order, err := spec.order()
	if err != nil {
		return err
	}
	if err := p.connect(ctx); err != nil {
		return err
	}
	c := &changing{project: p, tell: tell, fresh: map[string]*instance{}}
	if err := c.openDoors(spec); err != nil {
		return errors.Join(err, c.undo(ctx))
	}
	for _, want := range order {
		if s := p.slot(want.Name); s != nil && s.same(want) {
			continue
		}
		if err := c.start(ctx, want); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", p.name, err), c.undo(ctx))
		}
	}
	if err := p.sup.state.save(spec); err != nil {
		return errors.Join(err, c.undo(ctx))
	}
	c.commit(ctx, spec)
	return nil
}

// connect makes the project's network when the first container needs it.
func (p *project) connect(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.segment != nil {
		return nil
	}
	var err error
	p.segment, err = network.NewSegment(ctx)
	return err
}

func (p *project) slot(name string) *slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slots[name]
}

// member takes a free address of the network.
func (p *project) member() (int, network.Address, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := slices.Index(p.members, false)
	if n < 0 {
		n = len(p.members)
	}
	a, err := network.SegmentAddress(n)
	if err != nil {
		return 0, a, err
	}
	if n == len(p.members) {
		p.members = append(p.members, false)
	}
	p.members[n] = true
	return n, a, nil
}

func (p *project) free(member int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.members[member] = false
}

// changing is one change of a project, until it is committed or undone.
type changing struct {
	*project
	tell  func(string)
	fresh map[string]*instance // started, behind no door yet
	began []*door              // opened for this change
	alone []*slot              // whose container was stopped for its successor to start
}

func (c *changing) openDoors(spec Spec) error {
	for _, want := range spec.Containers {
		for _, port := range want.Ports {
			if c.doors[port.Host] != nil {
				continue
			}
			d, err := openDoor(port.Host, c.sup.o.Log)
			if err != nil {
				return err
			}
			c.began = append(c.began, d)
			c.mu.Lock()
			c.doors[port.Host] = d
			c.mu.Unlock()
		}
	}
	return nil
}

// start makes the next container of a name and waits until it is well. The one
// before goes on, unless both would write to the same files.
func (c *changing) start(ctx context.Context, want *Container) error {
	if s := c.slot(want.Name); s != nil && (want.alone() || s.spec.alone()) {
		c.tell("stopping " + want.Name + ": its successor writes to the same volumes")
		c.point(s.spec.Ports, nil)
		s.halt()
		c.alone = append(c.alone, s)
	}
	c.tell("starting " + want.Name + " " + string(want.Digest))
	i, err := c.launch(ctx, want, c.hosts(c.fresh))
	if err != nil {
		return err
	}
	if err := i.await(ctx); err != nil {
		i.close()
		return err
	}
	c.fresh[want.Name] = i
	c.tell(want.Name + " is up")
	return nil
}

// undo brings back what was before.
func (c *changing) undo(ctx context.Context) error {
	for _, i := range c.fresh {
		i.stop()
	}
	for _, d := range c.began {
		c.mu.Lock()
		for at, other := range c.doors {
			if other == d {
				delete(c.doors, at)
			}
		}
		c.mu.Unlock()
		d.close()
	}
	var errs []error
	for _, s := range c.alone {
		c.tell("starting " + s.spec.Name + " as it was")
		if err := s.begin(context.WithoutCancel(ctx)); err != nil {
			errs = append(errs, fmt.Errorf("and what ran before does not start again: %w", err))
		}
	}
	return errors.Join(errs...)
}

// commit lets the new containers answer, and ends those they replace.
func (c *changing) commit(ctx context.Context, spec Spec) {
	var before []*slot
	c.mu.Lock()
	old := c.slots
	c.slots = map[string]*slot{}
	for i := range spec.Containers {
		want := &spec.Containers[i]
		if next := c.fresh[want.Name]; next != nil {
			c.slots[want.Name] = newSlot(c.project, *want, next)
		} else {
			c.slots[want.Name] = old[want.Name]
			c.slots[want.Name].publish(*want)
			delete(old, want.Name)
		}
	}
	for _, s := range old {
		before = append(before, s)
	}
	published := c.spec.published()
	c.spec = spec
	c.mu.Unlock()

	rooms := c.repoint(spec, published)
	c.rename()
	for _, s := range before {
		for _, r := range rooms[s.spec.Name] {
			r.drain(ctx, s.drain())
		}
		s.halt()
	}
	for _, s := range c.slots {
		s.watch()
	}
	if err := c.sup.sweep(); err != nil {
		c.sup.o.Log.Warn().Err(err).Msg("layers that nothing runs on were not removed")
	}
}

// repoint sends every published port to the container that has it now, closes
// those that nobody has, and gives by container what was behind them.
func (c *changing) repoint(spec Spec, was map[string]Port) map[string][]*room {
	rooms, now := map[string][]*room{}, spec.published()
	for _, want := range spec.Containers {
		for _, port := range want.Ports {
			if c.fresh[want.Name] != nil || was[want.Name+" "+port.Host] != port {
				rooms[want.Name] = append(rooms[want.Name], c.point([]Port{port}, c.slots[want.Name].current())...)
			}
		}
	}
	for at, d := range c.doors {
		if !slices.ContainsFunc(slices.Sorted(maps.Keys(now)), func(key string) bool { return now[key].Host == at }) {
			c.mu.Lock()
			delete(c.doors, at)
			c.mu.Unlock()
			d.close()
		}
	}
	return rooms
}

// point sends the doors of a container to an instance, or lets callers wait.
func (p *project) point(ports []Port, to *instance) (before []*room) {
	for _, port := range ports {
		p.mu.Lock()
		d := p.doors[port.Host]
		p.mu.Unlock()
		if d == nil {
			continue
		}
		if to == nil {
			before = append(before, d.point(nil))
		} else {
			before = append(before, d.point(to.dialer(port.Container)))
		}
	}
	return slices.DeleteFunc(before, func(r *room) bool { return r == nil })
}

// hosts are the names that a container of the project knows; those in fresh go
// before those that run.
func (p *project) hosts(fresh map[string]*instance) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := map[string]network.Address{}
	for name, s := range p.slots {
		if i := s.current(); i != nil {
			at[name] = i.address
		}
	}
	for name, i := range fresh {
		at[name] = i.address
	}
	text := ""
	for _, name := range slices.Sorted(maps.Keys(at)) {
		text += fmt.Sprintf("%s\t%s\n%s\t%s\n", at[name].IPv4, name, at[name].IPv6, name)
	}
	return text
}

// rename tells every running container where the others are now.
func (p *project) rename() {
	hosts := p.hosts(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.slots {
		if i := s.current(); i != nil {
			if err := i.setHosts(hosts); err != nil {
				p.sup.o.Log.Warn().Err(err).Str("project", p.name).Str("container", s.spec.Name).Msg("it does not know where the others are now")
			}
		}
	}
}

// stop ends all containers, those that depend on others first.
func (p *project) stop() {
	p.change.Lock()
	defer p.change.Unlock()
	order, err := p.spec.order()
	if err == nil {
		slices.Reverse(order)
		for _, c := range order {
			if s := p.slot(c.Name); s != nil {
				p.point(s.spec.Ports, nil)
				s.halt()
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, d := range p.doors {
		d.close()
		delete(p.doors, at)
	}
	if p.segment != nil {
		if err := p.segment.Close(); err != nil {
			p.sup.o.Log.Warn().Err(err).Str("project", p.name).Msg("its network was not let go")
		}
		p.segment = nil
	}
	p.slots, p.members = map[string]*slot{}, nil
}

// restart replaces containers by new ones of the same spec.
func (p *project) restart(ctx context.Context, names []string, tell func(string)) error {
	p.change.Lock()
	defer p.change.Unlock()
	order, err := p.spec.order()
	if err != nil {
		return err
	}
	for _, name := range names {
		if p.slot(name) == nil {
			return fmt.Errorf("%s has no container %s", p.name, name)
		}
	}
	for _, want := range order {
		if len(names) > 0 && !slices.Contains(names, want.Name) {
			continue
		}
		c := &changing{project: p, tell: tell, fresh: map[string]*instance{}}
		if err := c.start(ctx, want); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", p.name, err), c.undo(ctx))
		}
		c.commit(ctx, p.spec)
	}
	return nil
}

// ProjectStatus is what a project is at the moment.
type ProjectStatus struct {
	Project    string            `json:"project"`
	Of         string            `json:"of,omitempty"`
	Promotion  string            `json:"promotion,omitempty"`
	Problem    string            `json:"problem,omitempty"` // of the last change
	Containers []ContainerStatus `json:"containers"`
}

// ContainerStatus is what one container is.
type ContainerStatus struct {
	Name       string    `json:"name"`
	Repository string    `json:"repository,omitempty"`
	Digest     string    `json:"digest"` // of what runs, not of what should
	State      State     `json:"state"`
	PID        int       `json:"pid,omitempty"` // on this machine; /proc/PID/root is what it sees
	Since      time.Time `json:"since,omitzero"`
	Restarts   int       `json:"restarts,omitempty"`
	Reason     string    `json:"reason,omitempty"` // of a container that is not well
	Ports      []Port    `json:"ports,omitempty"`
}

func (p *project) status() ProjectStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := ProjectStatus{Project: p.name, Of: p.spec.Of, Promotion: p.spec.Promotion, Problem: p.problem, Containers: []ContainerStatus{}}
	for _, name := range slices.Sorted(maps.Keys(p.slots)) {
		st.Containers = append(st.Containers, p.slots[name].status())
	}
	return st
}
