package network

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// answerDNS is a name server's logic: A and AAAA records for every name, and a
// truncated answer over UDP for names that begin with "long".
func answerDNS(t *testing.T, query []byte, tcp bool) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	h.Response, h.Authoritative = true, true
	h.Truncated = !tcp && strings.HasPrefix(q.Name.String(), "long")
	b := dnsmessage.NewBuilder(nil, h)
	must(t, b.StartQuestions())
	must(t, b.Question(q))
	must(t, b.StartAnswers())
	rh := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}
	switch {
	case h.Truncated:
	case q.Type == dnsmessage.TypeA:
		must(t, b.AResource(rh, dnsmessage.AResource{A: [4]byte{198, 51, 100, 10}}))
	case q.Type == dnsmessage.TypeAAAA:
		must(t, b.AAAAResource(rh, dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::10").As16()}))
	}
	msg, err := b.Finish()
	must(t, err)
	return msg
}

// resolve serves DNS on the host's own loopback, where systemd-resolved does.
func resolve(t *testing.T) {
	t.Helper()
	u, err := net.ListenPacket("udp", "127.0.0.53:53")
	must(t, err)
	t.Cleanup(func() { u.Close() })
	go answerUDP(u.(*net.UDPConn), func(q []byte) []byte { return answerDNS(t, q, false) })
	l, err := net.Listen("tcp", "127.0.0.53:53")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveDNS(t, c)
		}
	}()
}

func serveDNS(t *testing.T, c net.Conn) {
	defer c.Close()
	var size [2]byte
	for {
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		a := answerDNS(t, query, true)
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...)); err != nil {
			return
		}
	}
}

// resolverIn asks as a program in the sandbox does, at the given name server.
func resolverIn(t *testing.T, n *Namespace, server string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
		return dialFrom(t, n.Path(), network, server)
	}}
}

func TestDNS(t *testing.T) {
	newWorld(t)
	resolve(t)
	dead, alive := netip.MustParseAddrPort("127.0.0.54:53"), netip.MustParseAddrPort("127.0.0.53:53")
	g := newGateway(t, Options{Resolvers: []netip.AddrPort{dead, alive}, Log: testLog(t)})
	n := newSandbox(t, g)
	for _, server := range []string{netip.AddrPortFrom(g.Nameserver(), 53).String(), "[fdb9:1a5c:7c31::1]:53"} {
		for _, name := range []string{"example.org.", "long.example.org."} {
			got, err := resolverIn(t, n, server).LookupHost(t.Context(), name)
			if want := []string{"198.51.100.10", "2001:db8::10"}; err != nil || !slices.Equal(slices.Sorted(slices.Values(got)), want) {
				t.Errorf("%s at %s: got %v, %v", name, server, got, err)
			}
		}
	}
	// The host's resolver is reached by the gateway's address only, and the
	// gateway's address by DNS only.
	expectRefused(t, n, "127.0.0.53:53")
	expectRefused(t, n, "10.213.77.1:54")
}

func TestNoResolver(t *testing.T) {
	newWorld(t)
	n := newSandbox(t, newGateway(t, Options{}))
	expectRefused(t, n, "10.213.77.1:53")
}
