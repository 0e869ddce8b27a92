package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Policy says which destinations a namespace may reach besides what is always
// refused (see [Gateway]): the zero value allows every other address, private
// ranges included, because that is where a company's mirrors live.
type Policy struct {
	Deny  []netip.Prefix   // refused as well
	Allow []netip.Prefix   // exceptions to Deny, never to what is always refused
	Host  []netip.AddrPort // exact exceptions to what is always refused, such as a mirror on this machine
}

// errRefused marks a destination the policy does not allow, to tell it from one
// that does not answer.
var errRefused = errors.New("refused by slipway's network policy")

// alwaysRefused are never reached, whatever Policy.Allow says. Sources: IANA
// special-purpose address registries (RFC 6890); the clouds' own documents for
// metadata addresses outside link-local.
var alwaysRefused = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this host"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local, cloud metadata"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved, broadcast"},
	{netip.MustParsePrefix("100.100.100.200/32"), "cloud metadata (Alibaba)"},
	{netip.MustParsePrefix("168.63.129.16/32"), "cloud metadata (Azure)"},
	{netip.MustParsePrefix("192.0.0.192/32"), "cloud metadata (Oracle)"},
	{netip.MustParsePrefix("::/96"), "unspecified, loopback"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "an IPv4 address in IPv6's clothes"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("fd00:ec2::/32"), "cloud metadata (AWS)"},
	{netip.MustParsePrefix("fd20:ce::254/128"), "cloud metadata (Google)"},
	{inside4, "the namespace's own network"},
	{inside6, "the namespace's own network"},
	{segment4, "the namespace's own network"},
	{segment6, "the namespace's own network"},
}

// check refuses dst or returns nil. It knows nothing of the host's own
// addresses: hostRoutes does.
func (p Policy) check(dst netip.AddrPort) error {
	addr := dst.Addr()
	if slices.Contains(p.Host, dst) {
		return nil
	}
	for _, r := range alwaysRefused {
		if r.prefix.Contains(addr) {
			return fmt.Errorf("%s: %w: %s", dst, errRefused, r.why)
		}
	}
	if contains(p.Deny, addr) && !contains(p.Allow, addr) {
		return fmt.Errorf("%s: %w: denied by configuration", dst, errRefused)
	}
	if v4, ok := embedded4(addr); ok {
		return p.check(netip.AddrPortFrom(v4, dst.Port()))
	}
	return nil
}

// Outside refuses what nothing is to be sent to on the word of a user: what a Policy
// always refuses, but for loopback, where other programs of this machine listen.
func Outside(dst netip.AddrPort) error {
	dst = netip.AddrPortFrom(dst.Addr().Unmap().WithZone(""), dst.Port())
	if dst.Addr().IsLoopback() {
		return nil
	}
	return Policy{}.check(dst)
}

func contains(ps []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052
	nat64Site = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	sixToFour = netip.MustParsePrefix("2002::/16")      // RFC 3056
)

// embedded4 is the IPv4 address that a translator on the way would turn addr
// into: 64:ff9b::169.254.169.254 reaches the metadata service where NAT64 runs.
func embedded4(addr netip.Addr) (netip.Addr, bool) {
	b := addr.As16()
	switch {
	case nat64.Contains(addr), nat64Site.Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case sixToFour.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}
