package runner

import (
	"context"
	"fmt"
	"time"

	"slipway/runner/wire"
)

// Freeze keeps the sandbox as its test left it, with the services beside it,
// beyond the life of the runner: as long as asked, and as long again after each
// use. What the test itself had running was ended with it, so that its result
// could be proved. The way to the internet ends with the runner; the private
// network stays. Layers and Binds must last as long: the caller sees to that.
// Close is called as ever, and lets go of the rest. name is RUN/TASK.
func (s *Sandbox) Freeze(ctx context.Context, name string, stay time.Duration) error {
	boxes, names := []*Sandbox{s}, []string{""}
	f := &wire.Frozen{Name: name, Keep: stay}
	if s.group != nil && s.group.ctx.Err() == nil { // else a service failed, and all were ended
		for _, m := range s.group.members {
			if c := m.running(); c != nil {
				boxes, names = append(boxes, c.s), append(names, m.Name)
			}
		}
		f.Hold = []string{s.group.network.Path}
	}
	if len(boxes) > wire.MaxMembers {
		return fmt.Errorf("keep %s: more than %d services", name, wire.MaxMembers-1)
	}
	var fds []int
	for i, b := range boxes {
		x := *b.req.exec(b.root.Config)
		x.Secrets, x.Out, x.Hosts, x.Beside = nil, "", "", true
		f.Members = append(f.Members, wire.Member{ID: b.id, Name: names[i], Exec: x})
		fd, err := b.talk.descriptor()
		if err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
		fds = append(fds, fd)
	}
	// Said first: a helper that has it must be let linger, whatever comes after.
	h := s.runner.helper
	h.mu.Lock()
	h.lingers = true
	h.mu.Unlock()
	if _, err := h.call(ctx, wire.Call{Op: wire.Freeze, Frozen: f}, fds...); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	for _, b := range boxes {
		b.frozen.Store(true)
		h.abandon(b) // its agent is not to be cut off with the helper
	}
	return nil
}

// running is the member's container while it runs.
func (m *member) running() *Container {
	select {
	case <-m.started:
	default:
		return nil
	}
	select {
	case <-m.container.ended:
		return nil
	default:
		return m.container
	}
}

// descriptor of the socket, valid while the socket is open.
func (t *talk) descriptor() (fd int, err error) {
	raw, err := t.conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	err = raw.Control(func(at uintptr) { fd = int(at) })
	return fd, err
}
