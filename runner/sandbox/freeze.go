package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// frozen is what stays of a failed test: its sandboxes, whose agents this process
// now holds by their sockets.
type frozen struct {
	wire.Frozen
	boxes  []*box
	agents []*os.File
	hold   []*os.File

	thaw chan struct{} // asked to go
	once sync.Once
	gone chan struct{} // closed when it is
	used chan struct{} // a use has ended
}

// freezer keeps failed tests beyond the runner's end.
type freezer struct {
	mu     sync.Mutex
	all    map[string]*frozen
	live   sync.WaitGroup
	server *control // nil until the first
}

// freeze takes sandboxes over from the runner. After it the runner can neither
// measure nor destroy them.
func (h *helper) freeze(f *wire.Frozen, agents []*os.File) (err error) {
	z := &frozen{agents: agents, thaw: make(chan struct{}), gone: make(chan struct{}), used: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			z.letGo()
		}
	}()
	if f == nil || f.Keep <= 0 || f.Name == "" || len(f.Members) == 0 || len(f.Members) != len(agents) {
		return errors.New("a freeze call needs a name, a time, and the agent's socket of each sandbox")
	}
	z.Frozen = *f
	z.Until = time.Now().Add(f.Keep)
	for _, m := range f.Members {
		b := h.find(m.ID)
		if b == nil || b.over() || b.diskWord.Load() != nil {
			return fmt.Errorf("nothing is left of the sandbox %s to be kept", m.ID)
		}
		z.boxes = append(z.boxes, b)
	}
	for _, path := range f.Hold {
		file, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("hold what its network hangs on: %w", err)
		}
		z.hold = append(z.hold, file)
	}
	return h.keep(z)
}

// keep makes it known, and begins to count its time.
func (h *helper) keep(z *frozen) (err error) {
	fr := &h.freezer
	fr.mu.Lock()
	defer fr.mu.Unlock()
	if fr.all[z.Name] != nil {
		return fmt.Errorf("there is a frozen %s already", z.Name)
	}
	if fr.server == nil {
		if fr.server, err = h.listen(); err != nil {
			return err
		}
	}
	fr.all[z.Name] = z
	if err := h.tellRanges(); err != nil {
		delete(fr.all, z.Name)
		return err
	}
	for _, b := range z.boxes {
		h.forget(b.id)
	}
	fr.live.Add(1)
	go h.await(z)
	return nil
}

// over reports whether everything in the sandbox has ended.
func (b *box) over() bool {
	select {
	case <-b.ended:
		return true
	default:
		return false
	}
}

// await removes it when its time is up, when it is asked to go, or when the
// test's own sandbox has ended. While it is used its time does not pass.
func (h *helper) await(z *frozen) {
	defer h.freezer.live.Done()
	timer := time.NewTimer(z.Keep)
	defer timer.Stop()
	for over := false; !over && h.stays(z, timer); {
		select {
		case <-timer.C:
		case <-z.used:
		case <-z.thaw:
			over = true
		case <-z.boxes[0].ended:
			over = true
		}
	}
	fr := &h.freezer
	fr.mu.Lock()
	delete(fr.all, z.Name)
	if err := h.tellRanges(); err != nil {
		h.cfg.Log.Warn().Err(err).Msg("ranges of ids stay taken until the frozen tests are gone")
	}
	fr.mu.Unlock()
	for _, b := range z.boxes {
		if err := h.destroy(b); err != nil {
			h.cfg.Log.Warn().Err(err).Str("frozen", z.Name).Msg("a sandbox was not removed whole; the next start removes the rest")
		}
	}
	z.letGo()
	close(z.gone)
}

// stays reports whether it is to be kept longer, and sets the timer for the next look.
func (h *helper) stays(z *frozen, timer *time.Timer) bool {
	h.freezer.mu.Lock()
	defer h.freezer.mu.Unlock()
	if z.Users > 0 {
		return true // the end of a use is told
	}
	left := time.Until(z.Until)
	timer.Reset(left)
	return left > 0
}

// use counts somebody in who has something open in it; the caller calls done.
func (h *helper) use(name string) (z *frozen, done func()) {
	h.freezer.mu.Lock()
	defer h.freezer.mu.Unlock()
	if z = h.freezer.all[name]; z == nil {
		return nil, nil
	}
	z.Users++
	return z, func() {
		h.freezer.mu.Lock()
		defer h.freezer.mu.Unlock()
		z.Users--
		z.Until = time.Now().Add(z.Keep)
		select {
		case z.used <- struct{}{}:
		default: // told already, and not looked at yet
		}
	}
}

// letGo closes what was held. An agent whose socket ends, ends.
func (z *frozen) letGo() {
	for _, f := range append(z.agents, z.hold...) {
		drop(f)
	}
}

// tellRanges writes down the ranges of ids that frozen sandboxes have, so that
// the next helper of this root leaves them out. Called under the lock.
func (h *helper) tellRanges() error {
	ranges := []int{}
	for _, z := range h.freezer.all {
		for _, b := range z.boxes {
			ranges = append(ranges, (b.slot.first-h.slots.base)/perSlot)
		}
	}
	data, err := json.Marshal(ranges)
	if err != nil {
		return err
	}
	path := filepath.Join(h.session.dir, wire.FrozenName)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("write down what is frozen: %w", err)
	}
	return os.Rename(path+".new", path)
}

// linger stays for what is frozen once the runner is gone: nothing of the
// runner's is held on to, so that whoever waits for its end is not kept.
func (h *helper) linger(socket *os.File) {
	h.freezer.mu.Lock()
	n := len(h.freezer.all)
	h.freezer.mu.Unlock()
	if n == 0 {
		return
	}
	if log, err := os.OpenFile(filepath.Join(h.session.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err == nil {
		_ = unix.Dup3(int(log.Fd()), int(os.Stderr.Fd()), 0) // fails for no two files that are open
		drop(log)
	}
	_ = os.Chdir("/") // where the runner was started may be unmounted
	drop(socket)
	select {
	case <-h.ended: // it was not for this
	default:
	}
	done := make(chan struct{})
	go func() {
		h.freezer.live.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-h.ended: // the machine shuts down
		h.thawAll()
		<-done
	}
}

// thawAll asks everything frozen to go.
func (h *helper) thawAll() {
	h.freezer.mu.Lock()
	defer h.freezer.mu.Unlock()
	for _, z := range h.freezer.all {
		z.ask()
	}
}

// ask asks it to go; gone says when it is.
func (z *frozen) ask() { z.once.Do(func() { close(z.thaw) }) }
