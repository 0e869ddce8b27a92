package network

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openDoors puts a server at every address of the host and of the world, so that a
// connection that does not come about was refused by the gateway.
func openDoors(t *testing.T, w *world) {
	t.Helper()
	for _, path := range []string{"/proc/self/ns/net", w.ns.Path()} {
		listen(t, path, 80, echo)
		listenUDP(t, path, 80, bytes.Clone)
	}
}

// tryTCP connects and expects an echo.
func tryTCP(t *testing.T, n *Namespace, address string) error {
	t.Helper()
	return try(t, n, "tcp", address)
}

func try(t *testing.T, n *Namespace, network, address string) error {
	t.Helper()
	c, err := dialFrom(t, n.Path(), network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	got := make([]byte, 16)
	k, err := c.Read(got)
	if err == nil && string(got[:k]) != "hello" {
		t.Errorf("%s %s: echo %q", network, address, got[:k])
	}
	return err
}

// expectRefused wants an answer that says no: a call that hangs never returns
// from try, and the test's own timeout tells.
func expectRefused(t *testing.T, n *Namespace, address string) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		err := try(t, n, network, address)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s %s: got %v, want connection refused", network, address, err)
		}
	}
}

func expectReached(t *testing.T, n *Namespace, address string) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		if err := try(t, n, network, address); err != nil {
			t.Errorf("%s %s: %v", network, address, err)
		}
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	openDoors(t, w)
	n := newSandbox(t, newGateway(t, Options{Log: testLog(t)}))

	for _, address := range []string{"198.51.100.10:80", "10.20.0.5:80", "192.0.2.2:80", "[2001:db8::10]:80", "[fd12::1]:80", "[2001:db8:1::2]:80"} {
		expectReached(t, n, address)
	}
	for _, address := range []string{
		"192.0.2.1:80",            // the host
		"[2001:db8:1::1]:80",      // the host
		"169.254.169.254:80",      // metadata
		"100.100.100.200:80",      // metadata
		"[fd00:ec2::254]:80",      // metadata
		"[64:ff9b::a9fe:a9fe]:80", // metadata by NAT64
		"240.0.0.1:80",
		"10.213.77.1:80",   // the gateway has no other doors
		"198.51.100.10:81", // nobody listens there: the world's own answer
		"[2001:db8::10]:81",
	} {
		expectRefused(t, n, address)
	}
}

// The host's subnet broadcast must not be reached; there is no TCP to it.
func TestRefusedBroadcast(t *testing.T) {
	w := newWorld(t)
	openDoors(t, w)
	n := newSandbox(t, newGateway(t, Options{}))
	if err := try(t, n, "udp", "192.0.2.255:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want connection refused", err)
	}
}

// An address that the host gets later is refused as well, and so is one that is
// only a local route.
func TestRefusedAddressAddedLater(t *testing.T) {
	w := newWorld(t)
	openDoors(t, w)
	n := newSandbox(t, newGateway(t, Options{}))
	expectReached(t, n, "203.0.113.7:80")
	expectReached(t, n, "203.0.113.8:80")
	expectReached(t, n, "[2001:db8::77]:80")

	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "late0"}, PeerName: "late1"}))
	late, err := netlink.LinkByName("late0")
	must(t, err)
	t.Cleanup(func() { must(t, netlink.LinkDel(late)) })
	must(t, netlink.LinkSetUp(late))
	giveAddress(t, late, netip.MustParsePrefix("203.0.113.7/32"))
	giveAddress(t, late, netip.MustParsePrefix("2001:db8::77/128"))
	route := &netlink.Route{
		LinkIndex: 1, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST,
		Dst: &net.IPNet{IP: net.IPv4(203, 0, 113, 8), Mask: net.CIDRMask(32, 32)},
	}
	must(t, netlink.RouteAdd(route))
	t.Cleanup(func() { must(t, netlink.RouteDel(route)) })

	awaitLocal(t, netip.MustParseAddr("2001:db8::77"))
	expectRefused(t, n, "203.0.113.7:80")
	expectRefused(t, n, "203.0.113.8:80")
	expectRefused(t, n, "[2001:db8::77]:80")
}

func TestRefusedByConfiguration(t *testing.T) {
	w := newWorld(t)
	openDoors(t, w)
	n := newSandbox(t, newGateway(t, Options{Policy: Policy{
		Deny:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Allow: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("0.0.0.0/0").Masked()},
	}}))
	expectReached(t, n, "10.20.0.5:80")
	expectRefused(t, n, "192.0.2.1:80")
	expectRefused(t, n, "127.0.0.1:80") // the sandbox's own loopback

	closed := newSandbox(t, newGateway(t, Options{Policy: Policy{
		Deny: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		Host: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")},
	}}))
	expectRefused(t, closed, "198.51.100.10:80")
	expectRefused(t, closed, "[2001:db8::10]:80")
	expectReached(t, closed, "192.0.2.1:80")
	expectRefused(t, closed, "192.0.2.1:81")
}

// Two sandboxes have the same addresses and never see each other.
func TestSandboxesApart(t *testing.T) {
	newWorld(t)
	g := newGateway(t, Options{})
	a, b := newSandbox(t, g), newSandbox(t, g)
	listen(t, b.Path(), 80, echo)
	if err := tryTCP(t, b, "10.213.77.2:80"); err != nil {
		t.Errorf("own server: %v", err)
	}
	for _, address := range []string{"10.213.77.2:80", "[fdb9:1a5c:7c31::2]:80", "10.213.77.1:80", "[fdb9:1a5c:7c31::1]:80", "10.213.77.3:80"} {
		if err := tryTCP(t, a, address); err == nil {
			t.Errorf("%s: another sandbox was reached", address)
		}
	}
}

// Where the host has no way out, calls fail at once inside too.
func TestNoRoute(t *testing.T) {
	w := newWorld(t)
	openDoors(t, w)
	g := newGateway(t, Options{})
	before := newSandbox(t, g)
	expectReached(t, before, "[2001:db8::10]:80")
	up, err := netlink.LinkByName("up0")
	must(t, err)
	for _, gw := range []netip.Addr{worldAddr.Addr(), world6.Addr()} {
		must(t, netlink.RouteDel(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: gw.AsSlice()}))
	}
	after := newSandbox(t, g)
	for _, network := range []string{"tcp", "udp"} {
		if err := try(t, after, network, "[2001:db8::10]:80"); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("%s from a sandbox without IPv6 route: got %v, want network unreachable", network, err)
		}
	}
	expectRefused(t, before, "[2001:db8::10]:80")
	expectRefused(t, before, "198.51.100.10:80")
}

func TestLoopback(t *testing.T) {
	newWorld(t)
	n, err := Loopback(t.Context())
	must(t, err)
	defer n.Close()
	listen(t, n.Path(), 80, echo)
	for _, address := range []string{"127.0.0.1:80", "[::1]:80"} {
		if err := tryTCP(t, n, address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"198.51.100.10:80", "[2001:db8::10]:80", "192.0.2.1:80"} {
		if err := tryTCP(t, n, address); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("%s: got %v, want network unreachable", address, err)
		}
	}
}
