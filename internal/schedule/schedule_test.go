package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

const gib = 1 << 30

// in reports who of these was let in.
func in(all []*Ticket) (got []int) {
	for i, w := range all {
		select {
		case <-w.in:
			got = append(got, i)
		default:
		}
	}
	return got
}

func TestAdmission(t *testing.T) {
	one, two := Share{1, gib}, Share{2, gib}
	type step struct {
		leaves int // index of who leaves; -1: nobody does
		in     []int
	}
	tests := []struct {
		name  string
		size  Share
		most  int
		asks  []Share
		steps []step
	}{
		{"as many as cores", Share{2, 8 * gib}, 0, []Share{one, one, one}, []step{{-1, []int{0, 1}}, {1, []int{0, 1, 2}}}},
		{"as many as memory", Share{8, 2 * gib}, 0, []Share{one, one, one}, []step{{-1, []int{0, 1}}, {0, []int{0, 1, 2}}}},
		{"as many as asked for", Share{8, 8 * gib}, 1, []Share{one, one, one}, []step{{-1, []int{0}}, {0, []int{0, 1}}, {1, []int{0, 1, 2}}}},
		{"parts of a core add up exactly", Share{1, 8 * gib}, 0, slices.Repeat([]Share{{0.1, 1}}, 11), []step{{-1, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}}},
		{"larger than the machine: alone", Share{2, 2 * gib}, 0, []Share{one, {64, 64 * gib}, one}, []step{{-1, []int{0, 2}}, {0, []int{0, 2}}, {2, []int{0, 1, 2}}}},
		{"nothing runs beside one that takes it all", Share{2, 2 * gib}, 0, []Share{{64, 1}, {0, 0}}, []step{{-1, []int{0}}, {0, []int{0, 1}}}},
		{"a small one fills the gap", Share{3, 8 * gib}, 0, []Share{two, two, one}, []step{{-1, []int{0, 2}}, {2, []int{0, 2}}, {0, []int{0, 1, 2}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := New(tt.size, tt.most)
			var all []*Ticket
			for i, ask := range tt.asks {
				all = append(all, m.Queue(i, ask))
			}
			for n, s := range tt.steps {
				if s.leaves >= 0 {
					m.leave(all[s.leaves])
				}
				if got := in(all); !slices.Equal(got, s.in) {
					t.Fatalf("step %d: %v are in, want %v", n, got, s.in)
				}
			}
		})
	}
}

func TestLowerPlacesGoFirst(t *testing.T) {
	m := New(Share{1, gib}, 0)
	running := m.Queue(9, Share{1, 1})
	var all []*Ticket
	for _, place := range []int{3, 1, 2, 1} {
		all = append(all, m.Queue(place, Share{1, 1}))
	}
	for n, want := range []int{1, 3, 2, 0} { // the second of the two in place 1 came later
		m.leave(running)
		got := slices.DeleteFunc(in(all), func(i int) bool { return all[i] == nil })
		if len(got) != n+1 || !slices.Contains(got, want) {
			t.Fatalf("after %d left, %v are in; want %d among them", n+1, got, want)
		}
		running = all[want]
	}
}

// A stream of small tasks must not keep a large one out.
func TestALargeTaskIsNotPassedForEver(t *testing.T) {
	m := New(Share{2, gib}, 0)
	running := m.Queue(0, Share{1, 1})
	large := m.Queue(1, Share{2, 1})
	for n := range patience {
		next := m.Queue(2+n, Share{1, 1})
		if len(in([]*Ticket{next})) == 0 {
			t.Fatalf("small task %d was kept out", n)
		}
		m.leave(running)
		running = next
	}
	late := m.Queue(100, Share{1, 1})
	if len(in([]*Ticket{late, large})) != 0 {
		t.Fatal("the large task's patience is used up, and another was let in")
	}
	m.leave(running)
	if got := in([]*Ticket{large, late}); !slices.Equal(got, []int{0}) {
		t.Fatalf("%v are in; want the large task", got)
	}
}

func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Share{2, gib}, 0)
		leave, err := m.Queue(0, Share{1, 1}).Enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stop := errors.New("the user said stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		large := make(chan error)
		go func() {
			_, err := m.Queue(1, Share{2, 1}).Enter(ctx)
			large <- err
		}()
		synctest.Wait()
		m.mu.Lock()
		m.waiting[0].passed = patience
		m.mu.Unlock()
		small := make(chan error)
		go func() {
			_, err := m.Queue(2, Share{1, 1}).Enter(t.Context())
			small <- err
		}()
		synctest.Wait()
		cancel(stop)
		if err := <-large; !errors.Is(err, stop) {
			t.Errorf("gave up with %v", err)
		}
		if err := <-small; err != nil { // it waited for the large one alone
			t.Error(err)
		}
		leave()
		if _, err := m.Queue(0, Share{}).Enter(ctx); !errors.Is(err, stop) {
			t.Errorf("entered with a cause of %v", err)
		}
	})
}

// FuzzMachine plays any order of arrivals, departures and changes of mind: never
// more inside than fits, never a machine that stands still, and in the end
// everyone was let in.
func FuzzMachine(f *testing.F) {
	f.Add(uint8(4), uint8(2), []byte{1, 2, 250, 3, 0, 0, 9, 200, 7})
	f.Add(uint8(1), uint8(0), []byte{255, 255, 1, 1, 1, 0, 0, 254, 3})
	f.Fuzz(func(t *testing.T, cores, most uint8, moves []byte) {
		m := New(Share{float64(cores%16) + 0.5, gib}, int(most%6))
		var waits, inside []*Ticket
		check := func(when string) {
			t.Helper()
			var used amount
			waits = slices.DeleteFunc(waits, func(w *Ticket) bool {
				if len(in([]*Ticket{w})) == 1 {
					inside = append(inside, w)
					return true
				}
				return false
			})
			for _, w := range inside {
				used.milli += w.ask.milli
				used.memory += w.ask.memory
			}
			if used != m.used || len(inside) != m.inside || used.milli > m.size.milli || used.memory > m.size.memory || m.most > 0 && len(inside) > m.most {
				t.Fatalf("%s: %d inside use %v, counted are %d and %v, the machine is %v and takes %d", when, len(inside), used, m.inside, m.used, m.size, m.most)
			}
			if len(inside) == 0 && len(waits) > 0 {
				t.Fatalf("%s: %d wait for an empty machine", when, len(waits))
			}
			if len(waits) != len(m.waiting) {
				t.Fatalf("%s: %d wait, %d are known", when, len(waits), len(m.waiting))
			}
			for _, w := range waits {
				if w.passed > patience {
					t.Fatalf("%s: one was passed %d times", when, w.passed)
				}
			}
		}
		for i, b := range moves {
			switch {
			case b%4 == 0 && len(inside) > 0:
				at := int(b/4) % len(inside)
				w := inside[at]
				inside = slices.Delete(inside, at, at+1)
				m.leave(w)
			case b%4 == 1 && len(waits) > 0:
				at := int(b/4) % len(waits)
				w := waits[at]
				waits = slices.Delete(waits, at, at+1)
				m.giveUp(w)
			default:
				waits = append(waits, m.Queue(int(b%8), Share{float64(b) / 16, int64(b) * gib / 100}))
			}
			check(fmt.Sprint("move ", i))
		}
		for len(inside) > 0 {
			w := inside[0]
			inside = inside[1:]
			m.leave(w)
			check("emptying")
		}
		if len(waits) > 0 || m.used != (amount{}) || m.inside != 0 {
			t.Fatalf("in the end %d wait and %v is used", len(waits), m.used)
		}
	})
}

// Real tasks, at the same time.
func TestTogether(t *testing.T) {
	m := New(Share{4, 4 * gib}, 3)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var now, peak int
	for i := range 200 {
		wg.Go(func() {
			leave, err := m.Queue(i, Share{float64(i%7) / 2, int64(i%5) * gib}).Enter(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			now++
			peak = max(peak, now)
			mu.Unlock()
			mu.Lock()
			now--
			mu.Unlock()
			leave()
		})
	}
	wg.Wait()
	if peak > 3 || m.inside != 0 || m.used != (amount{}) {
		t.Fatalf("at most %d at once, %d left inside", peak, m.inside)
	}
}
