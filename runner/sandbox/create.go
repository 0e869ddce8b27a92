package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"slipway/runner/wire"
)

// box is one sandbox.
type box struct {
	id     string
	dir    string // on disk: the writable layer and /out
	target string // mount point of the root, in this process's mounts only
	slot   *slot

	group   *group
	process *os.Process
	ended   chan struct{} // closed when PID 1 is gone and collected

	once      sync.Once
	removeErr error
	diskWord  atomic.Pointer[string]
}

// create makes a sandbox up to the point where its agent waits for a command.
// What was made before a failure is removed.
func (h *helper) create(id string, s *wire.Sandbox, agent *os.File) (_ *wire.Made, err error) {
	if s == nil || agent == nil || id == "" || filepath.Base(id) != id {
		return nil, errors.New("a create call needs an id, a sandbox and the agent's socket")
	}
	t := newTimer()
	if err := h.watch.room(); err != nil {
		return nil, err
	}
	if err := h.claim(id); err != nil {
		return nil, err
	}
	b := &box{id: id, target: filepath.Join(h.mounts, id)}
	defer func() {
		if err != nil {
			h.forget(id)
			err = errors.Join(err, h.destroy(b))
		}
	}()
	if b.slot, err = h.slots.take(); err != nil {
		return nil, err
	}
	if b.slot.dir == "" {
		if b.slot.dir, err = h.lay(b.slot); err != nil {
			return nil, err
		}
	}
	b.dir, b.slot.dir = b.slot.dir, ""
	if err := os.Mkdir(b.target, 0o755); err != nil {
		return nil, fmt.Errorf("make a mount point: %w", err)
	}
	t.lap("slot")
	if len(s.Lowers) == 0 {
		return nil, errors.New("an image without layers holds no command")
	}
	root := overlay{lowers: s.Lowers, below: h.skeleton(), state: b.dir, target: b.target, slot: b.slot}
	if err := root.mount(); err != nil {
		return nil, err
	}
	t.lap("overlay")
	if err := h.place(b, s); err != nil {
		return nil, err
	}
	t.lap("place")
	limits := resources(s.Limits)
	if err := h.weaken(b, s, limits); err != nil {
		return nil, err
	}
	if b.group, err = h.newGroup(id, limits); err != nil {
		return nil, err
	}
	t.lap("cgroup")
	if err := h.launch(b, s, agent); err != nil {
		return nil, fmt.Errorf("make the sandbox: %w", err)
	}
	h.watch.add(b, s.Limits.Disk)
	h.mu.Lock()
	h.sandboxes[id] = b
	h.mu.Unlock()
	t.lap("launch")
	return &wire.Made{PID: b.process.Pid, Out: filepath.Join(b.dir, outName), TimingUS: t.laps}, nil
}

// claim reserves an id.
func (h *helper) claim(id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.sandboxes[id]; ok {
		return fmt.Errorf("there is a sandbox %s already", id)
	}
	h.sandboxes[id] = nil
	return nil
}

// timer notes how long each step of a creation took, in microseconds.
type timer struct {
	last time.Time
	laps map[string]int64
}

func newTimer() *timer { return &timer{last: time.Now(), laps: map[string]int64{}} }

func (t *timer) lap(name string) {
	now := time.Now()
	t.laps[name] = now.Sub(t.last).Microseconds()
	t.last = now
}
