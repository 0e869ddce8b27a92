package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestResolvers(t *testing.T) {
	for name, tt := range map[string]struct {
		conf string
		want []string
	}{
		"several": {"# local\nnameserver 127.0.0.53\nsearch a.b\n\tnameserver\t2001:db8::53\noptions edns0\n", []string{"127.0.0.53:53", "[2001:db8::53]:53"}},
		"zone":    {"nameserver fe80::1%eth0\n", []string{"[fe80::1%eth0]:53"}},
		"none":    {"search a.b\n", []string{"127.0.0.1:53"}},
		"broken":  {"nameserver\nnameserver dns.example\nnameserver 192.0.2.53 extra\n", []string{"192.0.2.53:53"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "resolv.conf")
			must(t, os.WriteFile(path, []byte(tt.conf), 0o600))
			got, err := Resolvers(path)
			must(t, err)
			var want []netip.AddrPort
			for _, s := range tt.want {
				want = append(want, netip.MustParseAddrPort(s))
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
	if got, err := Resolvers(filepath.Join(t.TempDir(), "absent")); err != nil || got[0].String() != "127.0.0.1:53" {
		t.Errorf("an absent file: %v, %v", got, err)
	}
	if _, err := Resolvers(t.TempDir()); err == nil {
		t.Error("no error for a directory")
	}
}
