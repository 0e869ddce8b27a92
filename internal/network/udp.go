package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	// maxUDP bounds the flows of one namespace, each a socket of this process.
	maxUDP = 512
	// udpIdle ends a flow over which nothing went (RFC 4787, 4.3: two minutes
	// or more).
	udpIdle = 2 * time.Minute
)

// udpFlows are the datagram flows of one namespace. They are translated, not
// ended: the stack has no endpoint for them, so every datagram comes here.
type udpFlows struct {
	mu   sync.Mutex
	open map[stack.TransportEndpointID]*udpFlow
}

// udpFlow is one source and destination inside, and the host's socket for it.
type udpFlow struct {
	conn *net.UDPConn
	used atomic.Int64 // Unix nanoseconds of the last datagram either way
}

func (f *udpFlow) touch() { f.used.Store(time.Now().UnixNano()) }

// handleUDP sends datagrams from inside on. A datagram not taken makes the stack
// answer "port unreachable", so a refused call fails at once.
func (w *wire) handleUDP(ctx context.Context, s *stack.Stack) {
	s.SetTransportProtocolHandler(udp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		payload := pkt.Data().AsRange().ToSlice()
		if isNameserver(remote(id)) {
			return w.question(ctx, guest(id), remote(id), payload)
		}
		flow := w.udpFlow(ctx, id)
		if flow == nil {
			return false
		}
		flow.touch()
		_, err := flow.conn.Write(payload)
		if errors.Is(err, unix.ECONNREFUSED) { // the answer to an earlier datagram
			_, _ = flow.conn.Write(payload)
		}
		return true // what the host's socket did not take is lost, as UDP may be
	})
}

// udpFlow finds or opens the flow of id; nil if it may not be.
func (w *wire) udpFlow(ctx context.Context, id stack.TransportEndpointID) *udpFlow {
	w.udp.mu.Lock()
	flow, n := w.udp.open[id], len(w.udp.open)
	w.udp.mu.Unlock()
	if flow != nil {
		return flow
	}
	dst := remote(id)
	if n >= maxUDP || !w.allowed(dst) {
		return nil
	}
	conn, err := w.g.dial(ctx, "udp", dst)
	if err != nil {
		w.g.log.Debug().Err(err).Msg("network: not reached")
		return nil
	}
	flow = &udpFlow{conn: conn.(*net.UDPConn)}
	flow.touch()
	w.udp.mu.Lock()
	w.udp.open[id] = flow
	w.udp.mu.Unlock()
	w.flows.Go(func() {
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		w.returnDatagrams(flow, id)
		w.udp.mu.Lock()
		delete(w.udp.open, id)
		w.udp.mu.Unlock()
		_ = conn.Close()
	})
	return flow
}

// returnDatagrams carries answers inside until the flow is idle or closed.
func (w *wire) returnDatagrams(flow *udpFlow, id stack.TransportEndpointID) {
	raw, err := flow.conn.SyscallConn()
	if err != nil {
		return
	}
	from, to := remote(id), guest(id)
	for {
		err := flow.conn.SetReadDeadline(time.Unix(0, flow.used.Load()).Add(w.g.udpIdle))
		if err != nil {
			return
		}
		switch err := w.returnDatagram(raw, from, to); {
		case err == nil:
			flow.touch()
		case errors.Is(err, unix.ECONNREFUSED):
			_ = w.tun.write(portUnreachable(from, to))
		case isTimeout(err) && time.Since(time.Unix(0, flow.used.Load())) < w.g.udpIdle:
			// something went out meanwhile
		default:
			return
		}
	}
}

// returnDatagram waits for one datagram and writes it to the device.
func (w *wire) returnDatagram(raw syscall.RawConn, from, to netip.AddrPort) error {
	buf, n, err := readWhenReady(raw, w.g.buffers, headroom)
	if err != nil {
		return err
	}
	defer w.g.buffers.put(buf)
	if n <= mtu-headroom {
		_ = w.tun.write(putUDP(buf, n, from, to)) // a lost datagram
	}
	return nil
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
