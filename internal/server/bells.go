package server

import "sync"

// bells wake those who follow runs of this server. Whoever hears none looks now and
// then all the same: a run may be another server's.
type bells struct {
	mu  sync.Mutex
	all map[string]chan struct{} // by run; closed when there is news
}

// hear gives what is closed at the next news of a run.
func (b *bells) hear(run string) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.all[run]
	if !ok {
		c = make(chan struct{})
		if b.all == nil {
			b.all = map[string]chan struct{}{}
		}
		b.all[run] = c
	}
	return c
}

// ring says that there is news of a run.
func (b *bells) ring(run string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c, ok := b.all[run]; ok {
		close(c)
		delete(b.all, run)
	}
}

// forget makes room. Others who wait for the same look by themselves, once.
func (b *bells) forget(run string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, run)
}
