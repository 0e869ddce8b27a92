package network

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// member is a namespace that has joined a segment, with a server that says its name.
func member(t *testing.T, s *Segment, n int, name string) (*Namespace, Address) {
	t.Helper()
	ns, err := Loopback(t.Context())
	must(t, err)
	t.Cleanup(func() { ns.Close() })
	at, err := SegmentAddress(n)
	must(t, err)
	must(t, s.Join(t.Context(), ns.Path(), at))
	var l net.Listener
	must(t, inside(ns.Path(), func() (err error) {
		l, err = net.Listen("tcp", ":7")
		return err
	}))
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			c.Close()
		}
	}()
	return ns, at
}

func newSegment(t *testing.T) *Segment {
	t.Helper()
	s, err := NewSegment(t.Context())
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func asked(t *testing.T, from *Namespace, to netip.Addr) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := Dial(ctx, from.Path(), netip.AddrPortFrom(to, 7))
	if err != nil {
		t.Fatalf("ask %s: %v", to, err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	must(t, err)
	return string(b)
}

// Two runs at once have the same addresses and never meet.
func TestSegmentsAreApart(t *testing.T) {
	newWorld(t)
	before := linkNames(t)
	var asker [2]*Namespace
	var at Address
	for i, name := range []string{"first", "second"} {
		s := newSegment(t)
		_, at = member(t, s, 0, name)
		asker[i], _ = member(t, s, 1, "asker")
	}
	for i, want := range []string{"first", "second"} {
		for _, to := range []netip.Addr{at.IPv4, at.IPv6} {
			if got := asked(t, asker[i], to); got != want {
				t.Errorf("run %d reached %q at %s, want %q", i, got, to, want)
			}
		}
	}
	if after := linkNames(t); !slices.Equal(before, after) {
		t.Errorf("the host's interfaces were %v and are %v", before, after)
	}
}

// No default route: what is not in the segment fails at once, the host, the
// world and cloud metadata included.
func TestSegmentLeadsNowhereElse(t *testing.T) {
	newWorld(t)
	ns, _ := member(t, newSegment(t), 0, "alone")
	for _, to := range []string{"192.0.2.1:80", "192.0.2.2:80", "169.254.169.254:80", "[2001:db8:1::1]:80", "[fd00:ec2::254]:80"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		c, err := Dial(ctx, ns.Path(), netip.MustParseAddrPort(to))
		if err == nil {
			c.Close()
			t.Errorf("reached %s", to)
		}
		if ctx.Err() != nil {
			t.Errorf("%s did not fail at once", to)
		}
		cancel()
	}
}

// A member that may also go out keeps both.
func TestSegmentBesideTheWayOut(t *testing.T) {
	w := newWorld(t)
	s := newSegment(t)
	_, at := member(t, s, 0, "service")
	ns, _ := member(t, s, 1, "test")
	g, err := New(Options{})
	must(t, err)
	t.Cleanup(func() { must(t, g.Close()) })
	link, err := g.Attach(t.Context(), ns.Path())
	must(t, err)
	defer link.Close()
	if got := asked(t, ns, at.IPv4); got != "service" {
		t.Errorf("reached %q", got)
	}
	var l net.Listener
	must(t, inside(w.ns.Path(), func() (err error) {
		l, err = net.Listen("tcp4", worldAddr.Addr().String()+":7")
		return err
	}))
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.WriteString(c, "world")
			c.Close()
		}
	}()
	if got := asked(t, ns, worldAddr.Addr()); got != "world" {
		t.Errorf("reached %q", got)
	}
}

func TestSegmentIsFull(t *testing.T) {
	for _, n := range []int{-1, maxMembers} {
		if a, err := SegmentAddress(n); err == nil {
			t.Errorf("member %d has %v", n, a)
		}
	}
}

func linkNames(t *testing.T) []string {
	t.Helper()
	links, err := netlink.LinkList()
	must(t, err)
	var names []string
	for _, l := range links {
		names = append(names, l.Attrs().Name)
	}
	return names
}

func BenchmarkSegmentOfThree(b *testing.B) {
	for b.Loop() {
		s, err := NewSegment(b.Context())
		must(b, err)
		var members []*Namespace
		for n := range 3 {
			b.StopTimer()
			ns, err := Loopback(b.Context())
			must(b, err)
			members = append(members, ns)
			b.StartTimer()
			at, err := SegmentAddress(n)
			must(b, err)
			must(b, s.Join(b.Context(), ns.Path(), at))
		}
		b.StopTimer()
		must(b, s.Close())
		for _, ns := range members {
			ns.Close()
		}
		b.StartTimer()
	}
}
