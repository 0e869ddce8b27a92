// Package schedule lets tasks into one machine, as many at once as its cores and
// its memory carry, in the order of their places.
//
// It refuses to let in more than fits, to make a task wait for ever, and to know
// what a task is: it is told what each asks for. A task that asks for more than
// the machine has gets all of it, and so runs alone. It measures nothing and
// stops nothing: the limits of what runs are the sandboxes' own.
package schedule

import (
	"context"
	"math"
	"slices"
	"sync"
)

// Share is a part of a machine.
type Share struct {
	CPUs   float64 // cores
	Memory int64   // bytes
}

// Machine is what tasks share. Its methods may be called at the same time.
type Machine struct {
	mu      sync.Mutex
	size    amount
	most    int // tasks at once; 0: as many as fit
	used    amount
	inside  int
	waiting []*Ticket // in the order they are let in
}

// patience is how often others may go ahead of a task that does not fit yet:
// small ones fill the gap, but the gap is not theirs for ever.
const patience = 8

// amount is a Share in whole numbers, whose sums are exact.
type amount struct{ milli, memory int64 }

// Ticket is a task's place in line.
type Ticket struct {
	machine *Machine
	place   int
	ask     amount
	passed  int           // how often others went ahead of it
	in      chan struct{} // closed when it is let in
}

// New describes a machine. most bounds the tasks in it at once whatever their
// size; 0 does not.
func New(size Share, most int) *Machine {
	return &Machine{size: size.amount(amount{math.MaxInt64, math.MaxInt64}), most: most}
}

// amount is s, at least a little and at most all of it: a task without size
// would be let into a machine that someone has for himself.
func (s Share) amount(all amount) amount {
	milli := int64(math.Ceil(min(s.CPUs, math.MaxInt32) * 1000))
	return amount{milli: min(max(milli, 1), all.milli), memory: min(max(s.Memory, 1), all.memory)}
}

// Queue puts a task that asks for so much in line, lower places first. Whoever
// queues also calls Enter.
func (m *Machine) Queue(place int, ask Share) *Ticket {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &Ticket{machine: m, place: place, ask: ask.amount(m.size), in: make(chan struct{})}
	at := slices.IndexFunc(m.waiting, func(x *Ticket) bool { return x.place > place })
	if at < 0 {
		at = len(m.waiting)
	}
	m.waiting = slices.Insert(m.waiting, at, t)
	m.admit()
	return t
}

// Enter waits until there is room. The task calls leave once, when it is done.
// The error is the cause of ctx, and then the task is out of the line.
func (t *Ticket) Enter(ctx context.Context) (leave func(), err error) {
	select {
	case <-t.in:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		t.machine.giveUp(t)
		return nil, context.Cause(ctx)
	}
	return func() { t.machine.leave(t) }, nil
}

// leave gives back what a task had.
func (m *Machine) leave(t *Ticket) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used.milli -= t.ask.milli
	m.used.memory -= t.ask.memory
	m.inside--
	m.admit()
}

// giveUp takes a task out that will not come, wherever it has got to.
func (m *Machine) giveUp(t *Ticket) {
	m.mu.Lock()
	at := slices.Index(m.waiting, t)
	if at >= 0 {
		m.waiting = slices.Delete(m.waiting, at, at+1)
		m.admit() // those behind it may have waited for it alone
	}
	m.mu.Unlock()
	if at < 0 { // let in at the same moment
		m.leave(t)
	}
}

// admit lets in, in their order, the tasks that fit. Behind one that does not
// fit others go ahead while its patience lasts; then the machine empties for it.
func (m *Machine) admit() {
	var ahead []*Ticket // of the one looked at, and waiting still
	for i := 0; i < len(m.waiting); {
		t := m.waiting[i]
		if !m.fits(t.ask) {
			if t.passed >= patience {
				return
			}
			ahead = append(ahead, t)
			i++
			continue
		}
		m.waiting = slices.Delete(m.waiting, i, i+1)
		m.used.milli += t.ask.milli
		m.used.memory += t.ask.memory
		m.inside++
		close(t.in)
		for _, x := range ahead {
			if x.passed++; x.passed >= patience {
				return
			}
		}
	}
}

func (m *Machine) fits(a amount) bool {
	return (m.most <= 0 || m.inside < m.most) && m.used.milli+a.milli <= m.size.milli && m.used.memory+a.memory <= m.size.memory
}
