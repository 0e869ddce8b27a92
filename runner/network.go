package runner

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Network is a private network for a test and its services. Members are counted
// from 0; each has the addresses that Address gives, before it has joined too.
type Network struct {
	Address func(member int) ([]netip.Addr, error)
	Join    func(ctx context.Context, netns string, member int) error
	Dial    func(ctx context.Context, netns string, to netip.AddrPort) (net.Conn, error) // as a process in that namespace would
	Close   func() error                                                                 // after all members are dead
	Path    string                                                                       // of what keeps the network up for as long as it is open; for Freeze
}

// hosts are the lines of /etc/hosts that give members their names.
func (n Network) hosts(names []string) (string, error) {
	var b strings.Builder
	for i, name := range names {
		all, err := n.Address(i)
		if err != nil {
			return "", err
		}
		for _, a := range all {
			fmt.Fprintf(&b, "%s\t%s\n", a, name)
		}
	}
	return b.String(), nil
}
