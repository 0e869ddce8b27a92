package network

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const nic = 1

// stackLink is a namespace's TCP/IP stack and the link it stands on.
type stackLink struct {
	*stack.Stack
	link *link
}

// newStack makes the other end of the wire: a stack that answers for every
// address there is. ctx ends all its flows.
func (w *wire) newStack(ctx context.Context) (*stackLink, error) {
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocol,
			ipv6.NewProtocolWithOptions(ipv6.Options{}), // no duplicate address detection, no autoconfiguration
		},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	l := &link{tun: w.tun}
	if err := firstError(
		func() tcpip.Error { return s.CreateNIC(nic, l) },
		func() tcpip.Error { return s.SetPromiscuousMode(nic, true) }, // take packets to any address
		func() tcpip.Error { return s.SetSpoofing(nic, true) },        // and answer from it
		func() tcpip.Error { return addAddressTo(s, ipv4.ProtocolNumber, gateway4, inside4.Bits()) },
		func() tcpip.Error { return addAddressTo(s, ipv6.ProtocolNumber, gateway6, inside6.Bits()) },
		func() tcpip.Error { return tuneTCP(s) },
	); err != nil {
		s.Destroy()
		return nil, fmt.Errorf("start network stack: %s", err)
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	// Refusals must be told at once, however many: nobody else is on this wire.
	s.SetICMPLimit(rate.Inf)
	s.SetICMPBurst(math.MaxInt32)
	w.handleTCP(ctx, s)
	w.handleUDP(ctx, s)
	return &stackLink{s, l}, nil
}

// tuneTCP fits TCP to a wire that is short, wide and lossless. The buffers
// bound what a slow reader can make this process hold: one of each per
// connection.
func tuneTCP(s *stack.Stack) tcpip.Error {
	sack := tcpip.TCPSACKEnabled(true)
	recovery := tcpip.TCPRecovery(0) // RACK takes reordering between processors for loss
	moderate := tcpip.TCPModerateReceiveBufferOption(false)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: 512 << 10, Max: 1 << 20}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: 512 << 10, Max: 1 << 20}
	timeWait := tcpip.TCPTimeWaitTimeoutOption(time.Second)
	linger := tcpip.TCPLingerTimeoutOption(10 * time.Second)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &recovery, &moderate, &receive, &send, &timeWait, &linger} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return err
		}
	}
	return nil
}

func addAddressTo(s *stack.Stack, proto tcpip.NetworkProtocolNumber, a netip.Addr, bits int) tcpip.Error {
	return s.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol:          proto,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(a.AsSlice()), PrefixLen: bits},
	}, stack.AddressProperties{})
}

func firstError(steps ...func() tcpip.Error) tcpip.Error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// remote is where a packet from inside wants to go. In the stack's words that
// is the local end, because the stack stands in for it.
func remote(id stack.TransportEndpointID) netip.AddrPort {
	return addrPort(id.LocalAddress, id.LocalPort)
}

// guest is who inside sent it.
func guest(id stack.TransportEndpointID) netip.AddrPort {
	return addrPort(id.RemoteAddress, id.RemotePort)
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(a.AsSlice()) // 4 or 16 bytes, by construction
	return netip.AddrPortFrom(addr, port)
}
