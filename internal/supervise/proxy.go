package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// patience is how long a caller waits for a container that is being started or
// changed before the connection is closed.
const patience = 30 * time.Second

// dialer connects to one port of one running container.
type dialer func(context.Context) (net.Conn, error)

// door is a published port: a socket on the host whose connections are carried
// to a container. Which one may change at any time: connections that are open
// stay with the container they were made to, new ones go to the new one, and
// those that come while there is none wait.
type door struct {
	listener net.Listener
	log      zerolog.Logger
	ctx      context.Context //nolint:containedctx // the life of the door, which no call spans
	cancel   context.CancelFunc
	served   sync.WaitGroup

	mu      sync.Mutex
	behind  *room
	changed chan struct{} // closed and replaced at every change of behind
}

// room is what stands behind a door, and who is in it.
type room struct {
	dial  dialer
	mu    sync.Mutex
	open  int
	shut  bool
	empty chan struct{} // closed when shut and nobody is in it
}

// openDoor listens at address ("127.0.0.1:8080") and holds callers until point.
func openDoor(address string, log zerolog.Logger) (*door, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("publish the port %s: %w; free it or choose another under ports", address, err)
	}
	d := &door{listener: l, log: log, changed: make(chan struct{})}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.served.Go(d.accept)
	return d, nil
}

// point sends new connections to a container, or lets them wait with nil. The
// room that was behind the door until now is returned, closed to new ones.
func (d *door) point(to dialer) (before *room) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, d.behind = d.behind, nil
	if to != nil {
		d.behind = &room{dial: to, empty: make(chan struct{})}
	}
	close(d.changed)
	d.changed = make(chan struct{})
	if before != nil {
		before.close()
	}
	return before
}

// close stops listening, cuts what is open and waits for it.
func (d *door) close() {
	d.cancel()
	_ = d.listener.Close() // it is only ever closed here
	d.served.Wait()
}

func (d *door) accept() {
	for {
		conn, err := d.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of files, say: it passes
			d.log.Warn().Err(err).Stringer("port", d.listener.Addr()).Msg("a connection was not accepted")
			if !pause(d.ctx, 50*time.Millisecond) {
				return
			}
			continue
		}
		d.served.Go(func() { d.serve(conn) })
	}
}

// serve carries one connection. One whose container died before it answered the
// call is put through to the next.
func (d *door) serve(conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(d.ctx, patience)
	defer cancel()
	for {
		in, changed := d.enter()
		if in == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return
			}
		}
		inner, err := in.dial(ctx)
		if err == nil {
			cancel()
			carry(d.ctx, conn, inner)
			in.leave()
			return
		}
		in.leave()
		select { // it listens in a moment, or another takes its place
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			d.log.Warn().Err(err).Stringer("port", d.listener.Addr()).Msg("nobody answered a connection")
			return
		}
	}
}

// enter gives the room behind the door with one more in it, or nil, and what
// tells of a change.
func (d *door) enter() (*room, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.behind != nil {
		d.behind.mu.Lock()
		d.behind.open++
		d.behind.mu.Unlock()
	}
	return d.behind, d.changed
}

func (r *room) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open--
	r.settle()
}

func (r *room) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = true
	r.settle()
}

// settle is called under the room's lock.
func (r *room) settle() {
	if r.shut && r.open == 0 {
		select {
		case <-r.empty:
		default:
			close(r.empty)
		}
	}
}

// drain waits until the last connection to the room has ended, or for so long.
func (r *room) drain(ctx context.Context, limit time.Duration) {
	if r == nil {
		return
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-r.empty:
	case <-t.C:
	case <-ctx.Done():
	}
}

// carry copies both ways until both ends have said all, or ctx ends.
func carry(ctx context.Context, a, b net.Conn) {
	defer b.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = a.Close() // either may have ended by itself
		_ = b.Close()
	})
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		oneWay(a, b)
	}()
	oneWay(b, a)
	<-done
}

// oneWay copies until from has said all, and passes that on.
func oneWay(to, from net.Conn) {
	_, err := io.Copy(to, from)
	half, ok := to.(interface{ CloseWrite() error })
	if err != nil || !ok || half.CloseWrite() != nil {
		_ = to.Close() // a broken connection is broken both ways
	}
}

// pause waits, and reports whether ctx is still good.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
