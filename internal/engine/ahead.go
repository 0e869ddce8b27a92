package engine

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// Ahead bounds what stands ready for tests whose turn has not come. The zero
// value prepares nothing before its turn.
type Ahead struct {
	Sandboxes int   // prepared or being prepared
	Memory    int64 // bytes that they and their services are counted with
}

// idleMemory is what a sandbox without services is counted with while it waits:
// several times what its agent, its mounts and its cgroups take.
const idleMemory = 8 << 20

// ahead prepares sandboxes in the order of the plan, for tests whose image is
// known and whose result cannot be reused. What it fails at is no failure of the
// test, which prepares for itself when its turn comes, and meets it again.
type ahead struct {
	mu     sync.Mutex
	spots  []spot // by task
	idle   int    // prepared or being prepared, and not claimed
	memory int64  // that those are counted with
	making int    // being prepared, claimed or not
	work   sync.WaitGroup
}

// spot is where a test stands with its first sandbox.
type spot struct {
	image  pipeline.Image // built, or foreseen
	known  bool
	built  bool
	closed bool         // its turn came, or never will
	tried  *preparation // the first for this image, however it went
}

type preparation struct {
	image   digest.Digest
	cost    int64
	counted bool // among the idle
	cancel  context.CancelFunc
	done    chan struct{} // closed when the rest is set
	made    bool
	sandbox Sandbox
}

// expect says which image the tests of a build get: the one it built, or until
// then the one foreseen. What was prepared for another image is let go.
func (c *conductor) expect(ctx context.Context, build pipeline.Task, image pipeline.Image, built bool) {
	c.ahead.mu.Lock()
	for i, task := range c.plan.Tasks {
		s := &c.ahead.spots[i]
		if task.Kind != pipeline.TestTask || task.Skip != "" || owner(task) != owner(build) || s.closed || s.built && !built {
			continue
		}
		if s.known && s.image.Descriptor.Digest != image.Descriptor.Digest {
			c.ahead.abandon(c.ahead.release(s))
		}
		s.image, s.known, s.built = image, true, built
	}
	c.ahead.mu.Unlock()
	c.fill(ctx)
}

// fill prepares for the next tests, as many as the bounds allow.
func (c *conductor) fill(ctx context.Context) {
	a := &c.ahead
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.spots {
		if a.idle >= c.Ahead.Sandboxes || a.making >= c.Ahead.Sandboxes || ctx.Err() != nil {
			return
		}
		s := &a.spots[i]
		cost := c.idleCost(i)
		if !s.known || s.closed || s.tried != nil || a.memory+cost > c.Ahead.Memory || !c.hopeful(i) || !c.besideBuilt(i) {
			continue
		}
		pctx, cancel := context.WithCancel(ctx)
		p := &preparation{image: s.image.Descriptor.Digest, cost: cost, counted: true, cancel: cancel, done: make(chan struct{})}
		s.tried = p
		a.idle++
		a.making++
		a.memory += cost
		image := s.image
		a.work.Go(func() {
			c.prepare(pctx, i, image, p)
			c.fill(ctx)
		})
	}
}

// hopeful reports whether nothing that a test needs has ended badly.
func (c *conductor) hopeful(i int) bool {
	for _, n := range c.plan.Tasks[i].Needs {
		select {
		case <-c.tasks[n].done:
			if c.tasks[n].state != pipeline.Passed {
				return false
			}
		default:
		}
	}
	return true
}

// besideBuilt reports whether the images are there that a test's services and
// volumes come from.
func (c *conductor) besideBuilt(i int) bool {
	task := c.plan.Tasks[i]
	for _, n := range task.Needs {
		if need := c.plan.Tasks[n]; need.Kind != pipeline.BuildTask || owner(need) == owner(task) {
			continue
		}
		select {
		case <-c.tasks[n].done:
		default:
			return false
		}
	}
	return true
}

// idleCost is what a prepared test is counted with: its services run.
func (c *conductor) idleCost(i int) int64 {
	cost := int64(idleMemory)
	for _, s := range c.plan.ServicesOf(c.plan.Tasks[i]) {
		cost += asked(s.Resources, serviceShare).Memory
	}
	return cost
}

// prepare makes the sandbox of a test's first attempt, if it will come to that.
func (c *conductor) prepare(ctx context.Context, i int, image pipeline.Image, p *preparation) {
	defer close(p.done)
	task := c.plan.Tasks[i]
	found, err := c.lookup(ctx, task, image)
	if err == nil && found.past == nil {
		p.sandbox, err = c.Prepare(ctx, c.request(task, image, found.services, 1))
		p.made = err == nil
	}
	if err != nil {
		c.Log.Debug().Err(err).Str("task", task.ID).Msg("not prepared ahead")
	}
	c.ahead.mu.Lock()
	defer c.ahead.mu.Unlock()
	c.ahead.making--
	if !p.made {
		c.ahead.uncount(p)
	}
}

// sandbox gives one for an attempt: the one that stands ready, or a new one.
func (c *conductor) sandbox(ctx context.Context, i int, r TestRequest) (Sandbox, error) {
	if p := c.claim(i); p != nil {
		<-p.done // soon: ctx covers it too
		if p.made && p.image == r.Image.Descriptor.Digest {
			inner := p.sandbox.Close
			p.sandbox.Close = func() { inner(); p.cancel() }
			c.fill(ctx)
			return p.sandbox, nil
		}
		c.ahead.abandon(p)
	}
	c.ahead.busy(1)
	s, err := c.Prepare(ctx, r)
	c.ahead.busy(-1)
	c.fill(ctx)
	return s, err
}

// claim takes what was prepared for a test, nil if nothing was. After it nothing
// is prepared ahead for that test any more.
func (c *conductor) claim(i int) *preparation {
	c.ahead.mu.Lock()
	defer c.ahead.mu.Unlock()
	s := &c.ahead.spots[i]
	s.closed = true
	return c.ahead.release(s)
}

// settle gives up what was prepared for a task that has ended without it.
func (c *conductor) settle(ctx context.Context, i int) {
	c.ahead.abandon(c.claim(i))
	c.fill(ctx)
}

func (a *ahead) release(s *spot) *preparation {
	p := s.tried
	s.tried = nil
	if p != nil {
		a.uncount(p)
	}
	return p
}

func (a *ahead) uncount(p *preparation) {
	if p.counted {
		p.counted = false
		a.idle--
		a.memory -= p.cost
	}
}

// abandon ends a preparation and removes what came of it, in the background.
func (a *ahead) abandon(p *preparation) {
	if p == nil {
		return
	}
	p.cancel()
	a.work.Go(func() {
		<-p.done
		if p.made {
			p.sandbox.Close()
		}
	})
}

// busy counts what tests prepare for themselves: that goes first.
func (a *ahead) busy(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.making += n
}
