package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// Sandbox is made and waits for its one command. Preparing is the slow part, so
// it may be done while other work goes on.
type Sandbox struct {
	runner *Runner
	req    Request
	root   Rootfs
	id     string
	made   *wire.Made
	egress io.Closer
	resolv string // content of /etc/resolv.conf

	talk   *talk
	group  *group // its services; nil without
	used   bool
	frozen atomic.Bool // it is the helper's now, and stays
	once   sync.Once
}

// Prepare makes a sandbox for req. The caller closes it. An error means that
// none could be made; ctx covers the making.
func (r *Runner) Prepare(ctx context.Context, req Request) (prepared *Sandbox, err error) {
	if err := req.check(); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", req.ID, err)
	}
	if err := r.enter(); err != nil {
		return nil, err
	}
	s := &Sandbox{runner: r, req: req, id: r.newID()}
	defer func() {
		if err != nil {
			err = fmt.Errorf("prepare a sandbox for %s: %w", req.ID, err)
			prepared = nil
			s.Close()
		}
	}()
	if len(req.Services) > 0 {
		if s.group, err = r.startGroup(ctx, &req); err != nil {
			return s, err
		}
		test := len(req.Services)
		s.req.hosts = s.group.hosts
		s.req.join = func(ctx context.Context, netns string) error { return s.group.network.Join(ctx, netns, test) }
	}
	if s.root, err = req.Rootfs(ctx, req.Image); err != nil {
		return s, err
	}
	ours, theirs, err := socketpair(unix.SOCK_STREAM)
	if err != nil {
		return s, err
	}
	defer drop(theirs)
	conn, err := unixConn(ours)
	if err != nil {
		return s, err
	}
	s.talk = newTalk(conn)
	r.helper.adopt(s)
	reply, err := r.helper.call(ctx, wire.Call{Op: wire.Create, ID: s.id, Sandbox: req.sandbox(s.root, r.opts.Defaults)}, int(theirs.Fd()))
	if err != nil {
		return s, err
	}
	s.made = reply.Made
	if err := ctx.Err(); err != nil {
		return s, context.Cause(ctx)
	}
	r.opts.Log.Debug().Str("test", req.ID).Interface("us", s.made.TimingUS).Msg("sandbox made")
	if s.req.join != nil {
		if err := s.req.join(ctx, s.netns()); err != nil {
			return s, err
		}
	}
	if req.Egress != nil {
		if err := s.connect(ctx); err != nil {
			return s, err
		}
	}
	return s, r.keep(s)
}

// netns is the path of its network namespace.
func (s *Sandbox) netns() string { return fmt.Sprintf("/proc/%d/ns/net", s.made.PID) }

// connect lets the sandbox out and tells it its resolvers.
func (s *Sandbox) connect(ctx context.Context) error {
	closer, resolvers, err := s.req.Egress(ctx, s.netns())
	if err != nil {
		return fmt.Errorf("connect it to the network: %w", err)
	}
	s.egress = closer
	var b strings.Builder
	for _, a := range resolvers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	s.resolv = b.String()
	return nil
}

// removeLimit is how long removing one sandbox may take.
const removeLimit = 2 * time.Minute

// Close kills what is left in the sandbox and removes it, in the background:
// the runner's Close waits. Closing again does nothing.
func (s *Sandbox) Close() {
	s.once.Do(func() {
		s.runner.forget(s)
		go func() {
			defer s.runner.live.Done()
			if err := s.remove(); err != nil {
				s.runner.opts.Log.Error().Err(err).Str("test", s.req.ID).Msg("a sandbox was not removed whole; the next start removes the rest")
			}
		}()
	})
}

func (s *Sandbox) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), removeLimit)
	defer cancel()
	var errs []error
	if s.talk != nil {
		s.runner.helper.abandon(s)
		errs = append(errs, s.talk.conn.Close())
	}
	if s.talk != nil && !s.frozen.Load() {
		// Asked for even if Create's answer never came: it may have been made.
		if _, err := s.runner.helper.call(ctx, wire.Call{Op: wire.Destroy, ID: s.id}); s.made != nil {
			errs = append(errs, err)
		}
	}
	if s.egress != nil {
		errs = append(errs, s.egress.Close())
	}
	if s.group != nil {
		errs = append(errs, s.group.close())
	}
	if s.root.Release != nil {
		errs = append(errs, s.root.Release())
	}
	return errors.Join(errs...)
}
