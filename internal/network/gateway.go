// Package network gives build steps and tests a private network that reaches
// out but never the host. A namespace holds one TUN device; what leaves it is
// read by this process, ended in a small TCP/IP stack of its own (gVisor's
// netstack) and dialled again from the host's network, each dial after asking
// a [Policy].
//
// It refuses: the host's own addresses, loopback, link-local (cloud metadata),
// multicast and broadcast, connections from outside into a namespace, and
// traffic between namespaces. It puts nothing on the host: no bridge, no veth,
// no firewall rule, no sysctl, no mount. File descriptors are all that holds a
// namespace, so kill -9 of this process removes everything.
//
// It carries TCP, UDP and DNS; ping only as far as the gateway.
package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Options says how a [Gateway] reaches out.
type Options struct {
	Policy    Policy
	Resolvers []netip.AddrPort // asked in order; empty: names do not resolve inside
	Ready     int              // namespaces kept made in the background after the first use
	Log       zerolog.Logger   // refused destinations at debug level; the zero value is silent
}

// Gateway makes namespaces and carries their traffic. Safe for concurrent use.
type Gateway struct {
	policy    Policy
	resolvers []netip.AddrPort
	log       zerolog.Logger
	host      *hostRoutes
	udpIdle   time.Duration
	buffers   *bufferPool
	ready     chan *Namespace

	making sync.WaitGroup // namespaces being made in the background
	mu     sync.Mutex
	inWork int // of them, not yet in ready
	open   map[io.Closer]struct{}
	closed bool
}

// errClosed is what a closed Gateway answers.
var errClosed = errors.New("network gateway is closed; open a new one")

// New opens a gateway. It needs root only once a namespace is asked for.
func New(o Options) (*Gateway, error) {
	host, err := openHostRoutes()
	if err != nil {
		return nil, err
	}
	return &Gateway{
		policy:    o.Policy,
		resolvers: o.Resolvers,
		log:       o.Log,
		host:      host,
		udpIdle:   udpIdle,
		buffers:   newBufferPool(),
		ready:     make(chan *Namespace, max(o.Ready, 0)),
		open:      map[io.Closer]struct{}{},
	}, nil
}

// Nameserver is the address inside every namespace that answers DNS, for the
// sandbox's /etc/resolv.conf. Questions go to Options.Resolvers.
func (g *Gateway) Nameserver() netip.Addr { return gateway4 }

// Namespace makes a network namespace with lo and eth0 up and a default route.
// ctx covers the making only; the caller closes it.
func (g *Gateway) Namespace(ctx context.Context) (*Namespace, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("make network namespace: %w", context.Cause(ctx))
	}
	if g.isClosed() {
		return nil, errClosed
	}
	defer g.refill()
	select {
	case n := <-g.ready:
		return n, nil
	default:
		return g.makeNamespace()
	}
}

// Attach wires an existing network namespace, such as /proc/PID/ns/net of a
// sandbox, whichever user namespace owns it: lo up, a TUN device named eth0 (or
// the next free ethN), a default route. Closing what it returns removes the
// device and resets its connections; that takes some 20 ms of the kernel's
// time, so a sandbox about to die is better killed first.
func (g *Gateway) Attach(ctx context.Context, netns string) (io.Closer, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("attach network to %s: %w", netns, context.Cause(ctx))
	}
	tun, err := attachDevice(netns, g.layout())
	if err != nil {
		return nil, fmt.Errorf("attach network to %s: %w", netns, err)
	}
	w := g.startWire(tun)
	if err := g.keep(w); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (g *Gateway) makeNamespace() (*Namespace, error) {
	ns, tun, err := newNamespace(g.layout())
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	n := hold(ns)
	n.wire = g.startWire(tun)
	if err := g.keep(n); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// refill makes one namespace in the background where fewer than Options.Ready
// wait. Making one takes a millisecond, mostly the kernel's.
func (g *Gateway) refill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || len(g.ready)+g.inWork >= cap(g.ready) {
		return
	}
	g.inWork++
	g.making.Go(func() {
		n, err := g.makeNamespace()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.inWork--
		if err != nil {
			g.log.Debug().Err(err).Msg("no network namespace made ahead")
			return
		}
		g.ready <- n // has room: inWork was counted against it
	})
}

// keep notes what Close has to close.
func (g *Gateway) keep(c io.Closer) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed
	}
	g.open[c] = struct{}{}
	return nil
}

func (g *Gateway) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

func (g *Gateway) forget(c io.Closer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, c)
}

// Close closes every namespace it made and cuts off every one it was attached
// to, and waits for all that runs. A second call does nothing.
func (g *Gateway) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	g.mu.Unlock()
	g.making.Wait()

	g.mu.Lock()
	left := make([]io.Closer, 0, len(g.open))
	for c := range g.open {
		left = append(left, c)
	}
	g.mu.Unlock()
	var errs []error
	for _, c := range left {
		errs = append(errs, c.Close())
	}
	g.host.Close()
	return errors.Join(errs...)
}
