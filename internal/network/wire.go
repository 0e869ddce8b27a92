package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	gvisor "gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// wire carries the traffic of one namespace: device, stack, the host's sockets.
// The stack is made when the first packet asks for something, so a step that
// uses no network costs one waiting goroutine.
type wire struct {
	g      *Gateway
	tun    *device
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when nothing of it runs any more

	flows sync.WaitGroup // what works on single packets and connections
	tcp   tcpFlows
	udp   udpFlows
	dns   chan struct{} // a slot per question under way

	once sync.Once
	err  error
}

// errCut is what ends the flows of a namespace that is being closed.
var errCut = errors.New("the network namespace was closed")

// startWire takes over tun and carries its traffic until Close.
func (g *Gateway) startWire(tun *device) *wire {
	ctx, cancel := context.WithCancelCause(context.Background())
	w := &wire{
		g:      g,
		tun:    tun,
		cancel: cancel,
		ended:  make(chan struct{}),
		dns:    make(chan struct{}, maxQuestions),
	}
	w.tcp.pending = map[stack.TransportEndpointID]struct{}{}
	w.udp.open = map[stack.TransportEndpointID]*udpFlow{}
	go w.run(ctx)
	return w
}

// Close resets every connection, waits for all flows and closes the device.
func (w *wire) Close() error {
	w.once.Do(func() {
		w.cancel(errCut)
		w.err = w.tun.interrupt()
		<-w.ended
		w.err = errors.Join(w.err, w.tun.Close())
		w.g.forget(w)
	})
	return w.err
}

// run reads packets until the device is interrupted or gone with its namespace.
func (w *wire) run(ctx context.Context) {
	defer close(w.ended)
	s, err := w.awaitUse(ctx)
	if err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			w.g.log.Debug().Err(err).Msg("network namespace lost its device")
		}
		return
	}
	defer func() {
		w.cancel(errCut)
		s.Close()
		w.flows.Wait()
		s.Wait()
	}()
	for {
		if err := w.deliverNext(s); err != nil {
			return
		}
	}
}

// awaitUse waits for the first packet worth a stack, makes it and delivers that
// packet.
func (w *wire) awaitUse(ctx context.Context) (*stackLink, error) {
	for {
		buf, n, err := w.tun.read(w.g.buffers)
		if err != nil {
			return nil, err
		}
		if !w.wanted(buf[:n]) {
			w.g.buffers.put(buf)
			continue
		}
		s, err := w.newStack(ctx)
		if err == nil {
			s.inject(buf[:n])
		}
		w.g.buffers.put(buf)
		return s, err
	}
}

func (w *wire) deliverNext(s *stackLink) error {
	buf, n, err := w.tun.read(w.g.buffers)
	if err != nil {
		return err
	}
	if w.wanted(buf[:n]) {
		s.inject(buf[:n])
	}
	w.g.buffers.put(buf)
	return nil
}

// wanted tells whether a packet is for the stack. Multicast (the kernel's own
// router solicitations and reports) is dropped; a ping beyond the gateway is
// answered as prohibited, because the stack would answer it for the whole world.
func (w *wire) wanted(pkt []byte) bool {
	src, dst, proto, ok := parseIP(pkt)
	if !ok || dst.IsMulticast() || dst == broadcast4 {
		return false
	}
	ping := proto == uint8(header.ICMPv4ProtocolNumber) || proto == uint8(header.ICMPv6ProtocolNumber)
	if !ping || dst == gateway4 || dst == gateway6 {
		return true
	}
	if isEcho(pkt, proto) {
		_ = w.tun.write(prohibited(dst, src, pkt)) // a lost answer is a lost packet
	}
	return false
}

// dial connects to dst from the host's network, if it may be reached.
func (g *Gateway) dial(ctx context.Context, network string, dst netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		last, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dial %s: %w", dst, err)
		}
		return g.check(last)
	}}
	conn, err := d.DialContext(ctx, network, dst.String())
	if err != nil {
		return nil, err
	}
	// The host may have been given the address while packets were sent again.
	if err := g.check(dst); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// check refuses dst or returns nil: first the policy, then the host's routes.
func (g *Gateway) check(dst netip.AddrPort) error {
	if err := g.policy.check(dst); err != nil {
		return err
	}
	for _, own := range g.policy.Host {
		if own == dst {
			return nil
		}
	}
	return g.host.check(dst.Addr())
}

// allowed is check for a packet from inside, with the refusal logged.
func (w *wire) allowed(dst netip.AddrPort) bool {
	err := w.g.check(dst)
	if err != nil {
		w.g.log.Debug().Err(err).Msg("network: not reached")
	}
	return err == nil
}

// inject hands one packet from the namespace to the stack.
func (l *stackLink) inject(raw []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: gvisor.MakeWithData(raw)})
	defer pkt.DecRef()
	l.link.deliver(header.IPVersion(raw), pkt)
}
