package network

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

var broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})

const hopLimit = 64

// parseIP reads the addresses and the protocol of an IP packet. An IPv6 packet
// with extension headers has the first of them for its protocol.
func parseIP(pkt []byte) (src, dst netip.Addr, proto uint8, ok bool) {
	switch header.IPVersion(pkt) {
	case header.IPv4Version:
		if len(pkt) < header.IPv4MinimumSize {
			return src, dst, 0, false
		}
		return netip.AddrFrom4([4]byte(pkt[12:16])), netip.AddrFrom4([4]byte(pkt[16:20])), pkt[9], true
	case header.IPv6Version:
		if len(pkt) < header.IPv6MinimumSize {
			return src, dst, 0, false
		}
		return netip.AddrFrom16([16]byte(pkt[8:24])), netip.AddrFrom16([16]byte(pkt[24:40])), pkt[6], true
	}
	return src, dst, 0, false
}

// isEcho tells whether an ICMP packet is a ping.
func isEcho(pkt []byte, proto uint8) bool {
	if proto == uint8(header.ICMPv6ProtocolNumber) {
		return len(pkt) > header.IPv6MinimumSize && pkt[header.IPv6MinimumSize] == byte(header.ICMPv6EchoRequest)
	}
	at := int(header.IPv4(pkt).HeaderLength())
	return len(pkt) > at && pkt[at] == byte(header.ICMPv4Echo)
}

// putUDP writes the headers of a datagram of n bytes that stands in buf from
// headroom on, and returns the packet.
func putUDP(buf *buffer, n int, from, to netip.AddrPort) []byte {
	start := headroom - header.UDPMinimumSize
	datagram := buf[start : headroom+n]
	u := header.UDP(datagram)
	u.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: uint16(len(datagram))})
	src, dst := tcpip.AddrFromSlice(from.Addr().AsSlice()), tcpip.AddrFromSlice(to.Addr().AsSlice())
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, src, dst, uint16(len(datagram)))
	sum = ^checksum.Checksum(datagram, sum)
	if sum == 0 {
		sum = 0xffff // zero means no checksum (RFC 768)
	}
	u.SetChecksum(sum)
	start -= ipHeaderSize(from.Addr())
	pkt := buf[start : headroom+n]
	putIP(pkt, uint8(header.UDPProtocolNumber), from.Addr(), to.Addr())
	return pkt
}

// prohibited is the ICMP error "administratively prohibited" for the packet
// offending, sent by from.
func prohibited(from, to netip.Addr, offending []byte) []byte {
	if from.Is4() {
		return icmpError(from, to, byte(header.ICMPv4DstUnreachable), byte(header.ICMPv4AdminProhibited), offending)
	}
	return icmpError(from, to, byte(header.ICMPv6DstUnreachable), byte(header.ICMPv6Prohibited), offending)
}

// portUnreachable is the ICMP error for a datagram from inside to a port where
// nobody listens. The datagram is gone by then; its headers tell enough.
func portUnreachable(from, to netip.AddrPort) []byte {
	offending := putUDP(new(buffer), 0, to, from)
	if from.Addr().Is4() {
		return icmpError(from.Addr(), to.Addr(), byte(header.ICMPv4DstUnreachable), byte(header.ICMPv4PortUnreachable), offending)
	}
	return icmpError(from.Addr(), to.Addr(), byte(header.ICMPv6DstUnreachable), byte(header.ICMPv6PortUnreachable), offending)
}

// icmpQuote is how much of the offending packet an error quotes: enough for any
// header, and an IPv6 error stays within the 1280 bytes of RFC 4443.
const icmpQuote = 512

// icmpError builds a whole packet: RFC 792 and RFC 4443 agree on 8 bytes of
// header before the quote.
func icmpError(from, to netip.Addr, kind, code byte, offending []byte) []byte {
	quote := offending[:min(len(offending), icmpQuote)]
	size := ipHeaderSize(from)
	pkt := make([]byte, size+8+len(quote))
	msg := pkt[size:]
	msg[0], msg[1] = kind, code
	copy(msg[8:], quote)
	proto := header.ICMPv4ProtocolNumber
	if from.Is4() {
		header.ICMPv4(msg).SetChecksum(^checksum.Checksum(msg, 0))
	} else {
		proto = header.ICMPv6ProtocolNumber
		src, dst := tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice())
		header.ICMPv6(msg).SetChecksum(^checksum.Checksum(msg, header.PseudoHeaderChecksum(proto, src, dst, uint16(len(msg)))))
	}
	putIP(pkt, uint8(proto), from, to)
	return pkt
}

func ipHeaderSize(a netip.Addr) int {
	if a.Is4() {
		return header.IPv4MinimumSize
	}
	return header.IPv6MinimumSize
}

// putIP writes the IP header of a packet whose payload is in place.
func putIP(pkt []byte, proto uint8, from, to netip.Addr) {
	src, dst := tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice())
	if from.Is4() {
		ip := header.IPv4(pkt)
		ip.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(pkt)), TTL: hopLimit, Protocol: proto, SrcAddr: src, DstAddr: dst,
		})
		ip.SetChecksum(^ip.CalculateChecksum())
		return
	}
	header.IPv6(pkt).Encode(&header.IPv6Fields{
		PayloadLength:     uint16(len(pkt) - header.IPv6MinimumSize),
		TransportProtocol: tcpip.TransportProtocolNumber(proto),
		HopLimit:          hopLimit, SrcAddr: src, DstAddr: dst,
	})
}
