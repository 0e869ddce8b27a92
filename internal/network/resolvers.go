package network

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

const dnsPort = 53

// Resolvers reads the nameserver lines of a resolv.conf(5), usually the host's
// /etc/resolv.conf. Without any, or without the file, it is 127.0.0.1, as in the C library.
func Resolvers(path string) ([]netip.AddrPort, error) {
	local := []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort)}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return local, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the host's name servers: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	var found []netip.AddrPort
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil {
			continue // the C library skips what it cannot read, and so must we
		}
		found = append(found, netip.AddrPortFrom(addr.Unmap(), dnsPort))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the host's name servers from %s: %w", path, err)
	}
	if len(found) == 0 {
		return local, nil
	}
	return found, nil
}
