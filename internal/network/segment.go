package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Every segment has the same addresses: segments never meet.
var (
	segment4 = netip.MustParsePrefix("10.213.78.0/24")
	segment6 = netip.MustParsePrefix("fdb9:1a5c:7c32::/64")
)

// maxMembers is how many a segment's IPv4 range has room for.
const maxMembers = 250

// memberDevice is a member's end, and its name inside.
const memberDevice = "svc0"

// Segment is a private network: a switch in a network namespace of its own, and
// a cable to each member. The host has no part in it: no interface, no route, no
// rule. It lives as long as this process holds it open or somebody is in it.
type Segment struct {
	netns  *os.File
	handle *netlink.Handle // in the switch's namespace
	bridge int             // index of the switch there
	joined atomic.Int32

	once sync.Once
	err  error
}

// Address is a member's place in its segment.
type Address struct{ IPv4, IPv6 netip.Addr }

// SegmentAddress is the address of the n-th member, counted from 0: known before
// anybody joins, so that members can be told each other's.
func SegmentAddress(n int) (Address, error) {
	if n < 0 || n >= maxMembers {
		return Address{}, fmt.Errorf("a network of more than %d containers; use fewer services", maxMembers)
	}
	v4, v6 := segment4.Addr().As4(), segment6.Addr().As16()
	v4[3], v6[15] = byte(n+2), byte(n+2)
	return Address{netip.AddrFrom4(v4), netip.AddrFrom16(v6)}, nil
}

// NewSegment makes a switch without members. ctx covers the making only.
func NewSegment(ctx context.Context) (*Segment, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("make a private network: %w", context.Cause(ctx))
	}
	s := &Segment{}
	err := onThread(unshareNetwork, func() (err error) {
		if s.netns, err = openCurrent(); err != nil {
			return err
		}
		if s.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("open netlink socket: %w", err)
		}
		return s.makeSwitch()
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a private network: %w", err), s.Close())
	}
	return s, nil
}

func (s *Segment) makeSwitch() error {
	snoop := false // nobody asks who listens here, so multicast (neighbour discovery) goes to all
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "switch", segmentMTU
	if err := s.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snoop}); err != nil {
		return fmt.Errorf("make its switch: %w; load the bridge module (modprobe bridge)", err)
	}
	link, err := s.handle.LinkByName(attrs.Name)
	if err != nil {
		return fmt.Errorf("find its switch: %w", err)
	}
	s.bridge = link.Attrs().Index
	if err := s.handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring its switch up: %w", err)
	}
	return nil
}

// segmentMTU: packets never leave this machine, and large ones cost nothing.
const segmentMTU = 65535

// Join connects a network namespace, such as /proc/PID/ns/net of a sandbox, to
// the segment at an address of SegmentAddress. There is no default route: what is
// not in the segment cannot be reached, and a call there fails at once.
func (s *Segment) Join(ctx context.Context, netns string, at Address) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("join the private network: %w", context.Cause(ctx))
	}
	target, err := os.Open(netns)
	if err != nil {
		return fmt.Errorf("join the private network: %w", err)
	}
	defer func() { _ = target.Close() }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = "m"+strconv.Itoa(int(s.joined.Add(1))), segmentMTU, s.bridge
	cable := &netlink.Veth{LinkAttrs: attrs, PeerName: memberDevice, PeerNamespace: netlink.NsFd(int(target.Fd())), PeerMTU: segmentMTU}
	if err := s.handle.LinkAdd(cable); err != nil {
		return fmt.Errorf("join the private network: make a cable: %w", err)
	}
	if err := s.handle.LinkSetUp(cable); err != nil {
		return fmt.Errorf("join the private network: bring its cable up: %w", err)
	}
	if err := onThread(func() error { return enterNetwork(target) }, func() error { return at.configure() }); err != nil {
		return fmt.Errorf("join the private network: %w", err)
	}
	return nil
}

func enterNetwork(netns *os.File) error {
	if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("join network namespace %s: %w", netns.Name(), err)
	}
	return nil
}

// configure brings the member's end up in this thread's namespace.
func (a Address) configure() error {
	if err := allowOrdinaryUsers(); err != nil {
		return err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(memberDevice)
	if err != nil {
		return fmt.Errorf("find %s: %w", memberDevice, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", memberDevice, err)
	}
	if err := addAddress(h, link, netip.PrefixFrom(a.IPv4, segment4.Bits()), netip.Addr{}, false); err != nil {
		return err
	}
	err = addAddress(h, link, netip.PrefixFrom(a.IPv6, segment6.Bits()), netip.Addr{}, false)
	if without6(err) {
		return nil
	}
	return err
}

// Path names the switch's namespace, for a process that holds the segment open
// beyond this one's life. It is valid until Close.
func (s *Segment) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.netns.Fd()) }

// Close lets the segment go. Its cables go when its members have; a second call
// does nothing.
func (s *Segment) Close() error {
	s.once.Do(func() {
		if s.handle != nil {
			s.handle.Close()
		}
		if s.netns != nil {
			s.err = s.netns.Close()
		}
	})
	return s.err
}

// Dial connects to an address inside a network namespace, as a process in it would.
// to is a literal address: there are no names in it.
func Dial(ctx context.Context, netns string, to netip.AddrPort) (conn net.Conn, err error) {
	target, err := os.Open(netns)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	defer func() { _ = target.Close() }()
	err = onThread(func() error { return enterNetwork(target) }, func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", to.String()) // a literal address: the socket is made on this thread
		return err
	})
	if err != nil && conn != nil {
		err = errors.Join(err, conn.Close())
		conn = nil
	}
	return conn, err
}
