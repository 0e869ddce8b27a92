package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// layout says how a namespace is set up inside.
type layout struct {
	reaches6 bool // with a default route for IPv6
}

// layout reads from the host whether IPv6 leads anywhere. Where it does not, a
// namespace gets no IPv6 default route: calls fail at once, and the C library
// stops preferring IPv6 addresses.
func (g *Gateway) layout() layout {
	return layout{reaches6: g.host.reaches6()}
}

// configure brings lo and the named device of this thread's namespace up.
func (l layout) configure(name string) error {
	if err := allowOrdinaryUsers(); err != nil {
		return err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	if err := h.LinkSetUp(loopback()); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := h.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set MTU of %s: %w", name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	if err := addAddress(h, link, netip.PrefixFrom(guest4, inside4.Bits()), gateway4, true); err != nil {
		return err
	}
	err = addAddress(h, link, netip.PrefixFrom(guest6, inside6.Bits()), gateway6, l.reaches6)
	if without6(err) {
		return nil
	}
	return err
}

// without6 tells a kernel or a namespace with IPv6 off, which is no failure.
func without6(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EACCES)
}

// addAddress gives link an address and, where asked, the default route.
func addAddress(h *netlink.Handle, link netlink.Link, p netip.Prefix, gw netip.Addr, route bool) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // nobody else is on this wire
	}
	if err := h.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("give %s to %s: %w", p, link.Attrs().Name, err)
	}
	if p.Addr().Is6() {
		if err := receive(h, link, p.Addr()); err != nil {
			return err
		}
	}
	if !route {
		return nil
	}
	if err := h.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice()}); err != nil {
		return fmt.Errorf("set default route by %s: %w", gw, err)
	}
	return nil
}

// receive adds the route by which link takes packets to addr. For IPv6 the kernel
// does so itself, but milliseconds later (addrconf_dad_work); until then it would
// drop the answers to a quick program, and TCP would try again after a second.
func receive(h *netlink.Handle, link netlink.Link, addr netip.Addr) error {
	err := h.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())},
		Type:      unix.RTN_LOCAL,
		Table:     unix.RT_TABLE_LOCAL,
		Scope:     unix.RT_SCOPE_HOST,
	})
	if err != nil {
		return fmt.Errorf("receive at %s: %w", addr, err)
	}
	return nil
}

// configureLoopback brings up lo of this thread's namespace and nothing else.
func configureLoopback() error {
	if err := allowOrdinaryUsers(); err != nil {
		return err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	if err := h.LinkSetUp(loopback()); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// loopback is lo, which has index 1 in every namespace.
func loopback() netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}
}

// allowOrdinaryUsers lets anybody in this thread's namespace bind low ports and
// send pings, as Docker does: a process in a user namespace has no capability
// over a namespace made here, and `nginx -t` binds port 80.
func allowOrdinaryUsers() error {
	for path, value := range map[string]string{
		"/proc/sys/net/ipv4/ip_unprivileged_port_start": "0",
		"/proc/sys/net/ipv4/ping_group_range":           "0 2147483647",
	} {
		err := os.WriteFile(path, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.EROFS) && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set %s: %w", path, err)
		}
	}
	return nil
}
