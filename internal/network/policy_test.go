package network

import (
	"errors"
	"net/netip"
	"testing"
)

func TestPolicy(t *testing.T) {
	prefixes := func(ss ...string) (ps []netip.Prefix) {
		for _, s := range ss {
			ps = append(ps, netip.MustParsePrefix(s))
		}
		return ps
	}
	narrow := Policy{
		Deny:  prefixes("10.0.0.0/8", "fd00::/8"),
		Allow: prefixes("10.1.0.0/16", "127.0.0.0/8"),
		Host:  []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5000")},
	}
	tests := []struct {
		policy  Policy
		dst     string
		refused bool
	}{
		{Policy{}, "198.51.100.10:443", false},
		{Policy{}, "10.20.0.5:443", false},
		{Policy{}, "192.168.1.1:443", false},
		{Policy{}, "100.64.1.1:443", false},
		{Policy{}, "[2001:db8::10]:443", false},
		{Policy{}, "[fd12::1]:443", false},
		{Policy{}, "[64:ff9b::c633:640a]:443", false},

		{Policy{}, "0.0.0.0:80", true},
		{Policy{}, "0.1.2.3:80", true},
		{Policy{}, "127.0.0.1:80", true},
		{Policy{}, "127.0.0.53:53", true},
		{Policy{}, "127.255.255.254:80", true},
		{Policy{}, "169.254.169.254:80", true},
		{Policy{}, "169.254.170.2:80", true},
		{Policy{}, "100.100.100.200:80", true},
		{Policy{}, "168.63.129.16:80", true},
		{Policy{}, "192.0.0.192:80", true},
		{Policy{}, "224.0.0.1:80", true},
		{Policy{}, "239.255.255.250:1900", true},
		{Policy{}, "240.0.0.1:80", true},
		{Policy{}, "255.255.255.255:67", true},
		{Policy{}, "10.213.77.1:80", true},
		{Policy{}, "[::]:80", true},
		{Policy{}, "[::1]:80", true},
		{Policy{}, "[::ffff:127.0.0.1]:80", true},
		{Policy{}, "[::ffff:198.51.100.10]:80", true},
		{Policy{}, "[fe80::1]:80", true},
		{Policy{}, "[febf::1]:80", true},
		{Policy{}, "[ff02::1]:80", true},
		{Policy{}, "[fd00:ec2::254]:80", true},
		{Policy{}, "[fd20:ce::254]:80", true},
		{Policy{}, "[64:ff9b::a9fe:a9fe]:80", true},
		{Policy{}, "[64:ff9b::7f00:1]:80", true},
		{Policy{}, "[64:ff9b:1::a9fe:a9fe]:80", true},
		{Policy{}, "[2002:a9fe:a9fe::1]:80", true},

		{narrow, "10.20.0.5:443", true},
		{narrow, "10.1.0.5:443", false},
		{narrow, "[fd12::1]:443", true},
		{narrow, "[64:ff9b::a14:5]:443", true},
		{narrow, "198.51.100.10:443", false},
		{narrow, "127.0.0.1:5000", false},
		{narrow, "127.0.0.1:5001", true},
		{narrow, "127.0.0.2:5000", true},
	}
	for _, tt := range tests {
		err := tt.policy.check(netip.MustParseAddrPort(tt.dst))
		if errors.Is(err, errRefused) != tt.refused || (err != nil) != tt.refused {
			t.Errorf("%s: got %v, want refused: %v", tt.dst, err, tt.refused)
		}
	}
}
