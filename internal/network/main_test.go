package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"slipway/internal/need"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The tests run in a network namespace of their own, which plays the host: they
// may give it addresses and routes without touching the machine. Another one
// plays the world: it answers at every address there is, so that what does not
// get through was stopped by the gateway and not by the lack of a server.
//
//	sandbox ── gateway in this process ── "host" ── veth ── "world"

const (
	inHost = "SLIPWAY_NETWORK_TEST_HOST" // set: this process is in the host's namespace
	asHeld = "SLIPWAY_NETWORK_TEST_HELD" // set: this process is the one to be killed
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asHeld) != "":
		beKilled()
	case os.Getenv(inHost) != "":
		os.Exit(m.Run())
	}
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inHost+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil: // not root: what needs a namespace skips by itself
		os.Exit(m.Run())
	}
	os.Exit(0)
}

var (
	hostAddr  = netip.MustParsePrefix("192.0.2.1/24")
	worldAddr = netip.MustParsePrefix("192.0.2.2/24")
	host6     = netip.MustParsePrefix("2001:db8:1::1/64")
	world6    = netip.MustParsePrefix("2001:db8:1::2/64")
)

// world is a namespace that answers at every address, and the host's way there.
type world struct{ ns *Namespace }

// newWorld joins this process's namespace, the host, to a new world by its
// default routes. Everything goes when the test ends.
func newWorld(tb testing.TB) *world {
	tb.Helper()
	var missing error
	if os.Getenv(inHost) == "" {
		missing = errors.New("no network namespace for the test; run as root")
	}
	need.Have(tb, "netns", missing)
	ns, err := Loopback(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ns.Close() })
	lo, err := netlink.LinkByName("lo")
	must(tb, err)
	must(tb, netlink.LinkSetUp(lo))

	must(tb, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "down0", PeerNamespace: netlink.NsFd(ns.netns.Fd()),
	}))
	up, err := netlink.LinkByName("up0")
	must(tb, err)
	tb.Cleanup(func() { must(tb, netlink.LinkDel(up)) })
	giveAddress(tb, up, hostAddr)
	giveAddress(tb, up, host6)
	must(tb, netlink.LinkSetUp(up))
	must(tb, inside(ns.Path(), func() error {
		down, err := netlink.LinkByName("down0")
		must(tb, err)
		giveAddress(tb, down, worldAddr)
		giveAddress(tb, down, world6)
		must(tb, netlink.LinkSetUp(down))
		for _, all := range []string{"0.0.0.0/0", "2001:db8::/48", "fd00::/8", "64:ff9b::/96"} {
			_, dst, err := net.ParseCIDR(all)
			must(tb, err)
			must(tb, netlink.RouteAdd(&netlink.Route{LinkIndex: 1, Dst: dst, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST}))
		}
		return nil
	}))
	must(tb, netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: worldAddr.Addr().AsSlice()}))
	must(tb, netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: world6.Addr().AsSlice()}))
	// IPv6 addresses work milliseconds after they are given.
	awaitLocal(tb, host6.Addr())
	must(tb, inside(ns.Path(), func() error { awaitLocal(tb, world6.Addr()); return nil }))
	return &world{ns}
}

func awaitLocal(tb testing.TB, a netip.Addr) {
	tb.Helper()
	for tb.Context().Err() == nil {
		addrs, err := netlink.AddrList(nil, netlink.FAMILY_V6)
		must(tb, err)
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		must(tb, err)
		given := slices.ContainsFunc(addrs, func(x netlink.Addr) bool { return x.IP.Equal(a.AsSlice()) && x.Flags&unix.IFA_F_TENTATIVE == 0 })
		if given && slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.IP.Equal(a.AsSlice()) }) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func giveAddress(tb testing.TB, l netlink.Link, p netip.Prefix) {
	tb.Helper()
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	must(tb, netlink.AddrAdd(l, a))
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// inside runs do on a thread within the namespace at path. Sockets made there
// stay there.
func inside(path string, do func() error) error {
	return onThread(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("join %s: %w", path, err)
		}
		return nil
	}, do)
}

// listen serves every connection to port of the namespace at path, at whatever
// address, until the test ends.
func listen(tb testing.TB, path string, port int, serve func(*net.TCPConn) error) {
	tb.Helper()
	var l net.Listener
	must(tb, inside(path, func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = serve(c.(*net.TCPConn)) // the other side tells what went wrong
			}()
		}
	}()
}

// listenUDP answers every datagram to port of the namespace at path, from the
// address it was sent to; nil is no answer.
func listenUDP(tb testing.TB, path string, port int, answer func([]byte) []byte) {
	tb.Helper()
	for network, opt := range map[string][3]int{
		"udp4": {unix.IPPROTO_IP, unix.IP_PKTINFO, unix.IP_FREEBIND},
		"udp6": {unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, unix.IPV6_FREEBIND},
	} {
		var c net.PacketConn
		must(tb, inside(path, func() (err error) {
			l := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
				return errors.Join(raw.Control(func(fd uintptr) {
					err = errors.Join(unix.SetsockoptInt(int(fd), opt[0], opt[1], 1), unix.SetsockoptInt(int(fd), opt[0], opt[2], 1))
				}), err)
			}}
			c, err = l.ListenPacket(tb.Context(), network, fmt.Sprintf(":%d", port))
			return err
		}))
		tb.Cleanup(func() { c.Close() })
		go answerUDP(c.(*net.UDPConn), answer)
	}
}

func answerUDP(c *net.UDPConn, answer func([]byte) []byte) {
	buf, control := make([]byte, 1<<16), make([]byte, 128)
	for {
		n, k, _, from, err := c.ReadMsgUDPAddrPort(buf, control)
		if err != nil {
			return
		}
		a := answer(buf[:n])
		if a == nil {
			continue
		}
		// The control message makes the address it came to the sender.
		if _, _, err := c.WriteMsgUDPAddrPort(a, control[:k], from); err != nil {
			return
		}
	}
}

// dialFrom connects from within the namespace at path.
func dialFrom(tb testing.TB, path, network, address string) (c net.Conn, err error) {
	tb.Helper()
	err = inside(path, func() error {
		d := net.Dialer{}
		var err error
		c, err = d.DialContext(tb.Context(), network, address)
		return err
	})
	return c, err
}

func newGateway(tb testing.TB, o Options) *Gateway {
	tb.Helper()
	g, err := New(o)
	must(tb, err)
	tb.Cleanup(func() { must(tb, g.Close()) })
	return g
}

func newSandbox(tb testing.TB, g *Gateway) *Namespace {
	tb.Helper()
	n, err := g.Namespace(tb.Context())
	must(tb, err)
	tb.Cleanup(func() { must(tb, n.Close()) })
	return n
}
