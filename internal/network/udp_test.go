package network

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"
)

func TestUDP(t *testing.T) {
	w := newWorld(t)
	listenUDP(t, w.ns.Path(), 80, bytes.Clone)
	n := newSandbox(t, newGateway(t, Options{}))
	for _, address := range []string{"198.51.100.10:80", "[2001:db8::10]:80"} {
		for _, size := range []int{1, 512, 1472, 9000, 65000} {
			t.Run(fmt.Sprintf("%s/%d", address, size), func(t *testing.T) {
				c, err := dialFrom(t, n.Path(), "udp", address)
				must(t, err)
				defer c.Close()
				sent, got := make([]byte, size), make([]byte, 1<<16)
				rand.Read(sent)
				for range 3 { // the flow is used again
					_, err := c.Write(sent)
					must(t, err)
					k, err := c.Read(got)
					must(t, err)
					if !bytes.Equal(got[:k], sent) {
						t.Fatalf("sent %d bytes, got %d others", size, k)
					}
				}
			})
		}
	}
}

// An empty datagram is a datagram.
func TestUDPEmpty(t *testing.T) {
	w := newWorld(t)
	listenUDP(t, w.ns.Path(), 80, func([]byte) []byte { return []byte{} })
	n := newSandbox(t, newGateway(t, Options{}))
	c, err := dialFrom(t, n.Path(), "udp", "198.51.100.10:80")
	must(t, err)
	defer c.Close()
	_, err = c.Write(nil)
	must(t, err)
	k, err := c.Read(make([]byte, 16))
	if k != 0 || err != nil {
		t.Errorf("got %d bytes, %v", k, err)
	}
}

// A flow nobody uses gives its socket back; the next datagram opens another.
func TestUDPIdle(t *testing.T) {
	w := newWorld(t)
	listenUDP(t, w.ns.Path(), 80, bytes.Clone)
	g := newGateway(t, Options{})
	g.udpIdle = 20 * time.Millisecond
	n := newSandbox(t, g)
	c, err := dialFrom(t, n.Path(), "udp", "198.51.100.10:80")
	must(t, err)
	defer c.Close()
	for range 2 {
		_, err = c.Write([]byte("hello"))
		must(t, err)
		_, err = c.Read(make([]byte, 16))
		must(t, err)
		eventually(t, "the idle flow is closed", func() bool {
			n.wire.udp.mu.Lock()
			defer n.wire.udp.mu.Unlock()
			return len(n.wire.udp.open) == 0
		})
	}
}

// A sandbox cannot take all of this process's file descriptors.
func TestUDPFlowsBounded(t *testing.T) {
	w := newWorld(t)
	listenUDP(t, w.ns.Path(), 80, bytes.Clone)
	n := newSandbox(t, newGateway(t, Options{}))
	for range maxUDP {
		c, err := dialFrom(t, n.Path(), "udp", "198.51.100.10:80")
		must(t, err)
		defer c.Close() // at the end: each keeps its port
		_, err = c.Write([]byte("hello"))
		must(t, err)
		_, err = c.Read(make([]byte, 16))
		must(t, err)
	}
	if err := try(t, n, "udp", "198.51.100.10:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("one flow too many: got %v, want connection refused", err)
	}
}

// eventually waits for what happens in the background; the test's own timeout
// is the limit.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for !is() {
		select {
		case <-t.Context().Done():
			t.Fatalf("never: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
