package network

import (
	"context"
	"net"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// maxTCP bounds the connections of one namespace, each a socket of this
// process; one more is refused.
const maxTCP = 2048

// tcpFlows are the connections of one namespace.
type tcpFlows struct {
	mu      sync.Mutex
	pending map[stack.TransportEndpointID]struct{} // being dialled; a SYN sent again changes nothing
	open    int                                    // pending ones included
}

// handleTCP ends connections from inside here and dials them again from the
// host. A SYN not taken is answered with RST, so a refused call fails at once.
func (w *wire) handleTCP(ctx context.Context, s *stack.Stack) {
	forwarder := tcp.NewForwarder(s, 0, maxTCP, func(r *tcp.ForwarderRequest) {
		defer w.flows.Done()
		w.connect(ctx, r)
	})
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		flags := header.TCP(pkt.TransportHeader().Slice()).Flags()
		if !flags.Contains(header.TCPFlagSyn) || flags.Contains(header.TCPFlagAck) {
			return false
		}
		switch w.tcp.begin(id) {
		case beganBefore:
			return true
		case tooMany:
			w.g.log.Debug().Stringer("to", remote(id)).Int("limit", maxTCP).Msg("network: too many connections")
			return false
		case begun:
		}
		// The count must stand before the forwarder starts its goroutine.
		w.flows.Add(1)
		if (isNameserver(remote(id)) || w.allowed(remote(id))) && forwarder.HandlePacket(id, pkt) {
			return true
		}
		w.tcp.settled(id)
		w.tcp.ended()
		w.flows.Done()
		return false
	})
}

// connect dials what r asks for and only then completes the handshake inside,
// so that a refused or dead destination looks like one.
func (w *wire) connect(ctx context.Context, r *tcp.ForwarderRequest) {
	defer w.tcp.ended()
	id := r.ID()
	conn, err := w.dialTCP(ctx, id)
	if err != nil {
		w.g.log.Debug().Err(err).Msg("network: not reached")
		r.Complete(!isTimeout(err)) // silence is answered with silence
		w.tcp.settled(id)
		return
	}
	var queue waiter.Queue
	ep, terr := r.CreateEndpoint(&queue)
	r.Complete(terr != nil)
	w.tcp.settled(id)
	if terr != nil {
		_ = conn.Close()
		return
	}
	relay(ctx, w.g.buffers, conn.(*net.TCPConn), &guestConn{ep: ep, queue: &queue})
}

func (w *wire) dialTCP(ctx context.Context, id stack.TransportEndpointID) (net.Conn, error) {
	if isNameserver(remote(id)) {
		return w.g.dialResolver(ctx)
	}
	return w.g.dial(ctx, "tcp", remote(id))
}

type beginning int

const (
	begun beginning = iota
	beganBefore
	tooMany
)

func (f *tcpFlows) begin(id stack.TransportEndpointID) beginning {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, dup := f.pending[id]; dup {
		return beganBefore
	}
	if f.open >= maxTCP {
		return tooMany
	}
	f.pending[id] = struct{}{}
	f.open++
	return begun
}

// settled says that id is connected or has failed: the next SYN is a new one.
func (f *tcpFlows) settled(id stack.TransportEndpointID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pending, id)
}

func (f *tcpFlows) ended() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
}
