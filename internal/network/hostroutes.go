package network

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostRoutes asks the kernel of the host's network namespace where an address
// leads. Asking at every dial, instead of keeping a list of interface addresses,
// also covers addresses added later, local routes and subnet broadcasts.
type hostRoutes struct{ handle *netlink.Handle }

func openHostRoutes() (*hostRoutes, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket to read the host's routes: %w", err)
	}
	return &hostRoutes{h}, nil
}

func (h *hostRoutes) Close() { h.handle.Close() }

// check refuses an address of the host itself, and one with no route to it, so
// that such a call fails at once inside.
func (h *hostRoutes) check(addr netip.Addr) error {
	routes, err := h.handle.RouteGet(addr.AsSlice())
	if err != nil {
		return fmt.Errorf("%s: no route from the host: %w", addr, err)
	}
	for _, r := range routes {
		if r.Type != unix.RTN_UNICAST {
			return fmt.Errorf("%s: %w: an address of the host", addr, errRefused)
		}
	}
	return nil
}

// reaches6 tells whether the host has a way out over IPv6: a route to a global
// address, from an address that is more than link-local.
func (h *hostRoutes) reaches6() bool {
	routes, err := h.handle.RouteGet(probe6.AsSlice())
	if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_UNICAST {
		return false
	}
	src, ok := netip.AddrFromSlice(routes[0].Src)
	return ok && !src.IsLinkLocalUnicast() && !src.IsLoopback()
}

// probe6 is some address of the public internet (the first of IANA's allocated
// range); nothing is ever sent to it.
var probe6 = netip.MustParseAddr("2000::1")
