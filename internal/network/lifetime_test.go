package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// canary puts one end of a veth pair into the namespace at path. The kernel
// removes both ends with the namespace, so the end in the host tells when it has
// gone for good.
func canary(t *testing.T, name, path string) (gone func() bool) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "canary", PeerNamespace: netlink.NsFd(f.Fd()),
	}))
	return func() bool {
		_, err := netlink.LinkByName(name)
		return errors.As(err, new(netlink.LinkNotFoundError))
	}
}

func countFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

func TestNothingLeaks(t *testing.T) {
	w := newWorld(t)
	listen(t, w.ns.Path(), 80, echo)
	listenUDP(t, w.ns.Path(), 80, func(b []byte) []byte { return b })
	var gone []func() bool
	var files, goroutines int
	for i := range 204 {
		if i == 4 { // the poller and such have what they need
			files, goroutines = countFiles(t), runtime.NumGoroutine()
		}
		g, err := New(Options{Ready: i % 3})
		must(t, err)
		n, err := g.Namespace(t.Context())
		must(t, err)
		if i%4 == 0 {
			expectReached(t, n, "198.51.100.10:80")
			expectRefused(t, n, "192.0.2.1:80")
		}
		if i%50 == 3 {
			gone = append(gone, canary(t, fmt.Sprintf("canary%d", i), n.Path()))
		}
		if i%2 == 0 { // else the gateway closes it
			must(t, n.Close())
		}
		must(t, g.Close())
	}
	eventually(t, fmt.Sprintf("goroutines are back at %d", goroutines), func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, fmt.Sprintf("open files are back at %d", files), func() bool { return countFiles(t) <= files })
	for _, is := range gone {
		eventually(t, "the kernel removes the namespace", is)
	}
}

// beKilled is a process with a namespace in full use, to be killed.
func beKilled() {
	fail := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	g, err := New(Options{Ready: 2})
	fail(err)
	for range 2 { // the second one comes with spares behind it
		n, err := g.Namespace(context.Background())
		fail(err)
		fail(inside(n.Path(), func() error {
			c, err := net.Dial("tcp", "198.51.100.10:80")
			fail(err)
			// The kernel keeps a namespace for up to two minutes while it tries
			// to end the connections of the dead; this one asks not to be kept.
			fail(c.(*net.TCPConn).SetLinger(0))
			_, err = c.Write([]byte("hello"))
			return err
		}))
		fmt.Println(n.Path())
	}
	select {}
}

func TestKilled(t *testing.T) {
	w := newWorld(t)
	ended := make(chan struct{}, 2)
	listen(t, w.ns.Path(), 80, func(c *net.TCPConn) error {
		_, err := io.Copy(io.Discard, c)
		ended <- struct{}{}
		return err
	})
	self, err := os.Executable()
	must(t, err)
	held := exec.Command(self)
	held.Env = append(os.Environ(), asHeld+"=1")
	held.Stderr = os.Stderr
	out, err := held.StdoutPipe()
	must(t, err)
	must(t, held.Start())
	t.Cleanup(func() { _ = held.Process.Kill() }) // where the test did not get that far
	lines := bufio.NewScanner(out)
	var gone []func() bool
	for i := range 2 {
		if !lines.Scan() {
			t.Fatal("the process to be killed did not come up")
		}
		gone = append(gone, canary(t, fmt.Sprintf("held%d", i), lines.Text()))
	}
	must(t, held.Process.Signal(syscall.SIGKILL))
	_ = held.Wait() // killed
	for _, is := range gone {
		eventually(t, "the kernel removes the namespace", is)
	}
	for range 2 {
		<-ended // the connections to the world ended with it
	}
}

// Closing cuts what is under way and waits for it.
func TestCloseDuringTransfer(t *testing.T) {
	w := newWorld(t)
	ended := make(chan struct{}, 1)
	listen(t, w.ns.Path(), 80, func(c *net.TCPConn) error {
		_, err := io.Copy(c, random(1<<40))
		ended <- struct{}{}
		return err
	})
	g := newGateway(t, Options{})
	n := newSandbox(t, g)
	c, err := dialFrom(t, n.Path(), "tcp", server)
	must(t, err)
	defer c.Close()
	_, err = io.CopyN(io.Discard, c, 1<<20)
	must(t, err)
	must(t, n.Close())
	<-ended
	must(t, n.Close()) // again does nothing
}

// A destination that is silent stays silent inside, and does not hold Close up.
func TestCloseDuringDial(t *testing.T) {
	newWorld(t)
	// Packets into a namespace whose end is down vanish.
	hole, err := Loopback(t.Context())
	must(t, err)
	defer hole.Close()
	must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "hole0"}, PeerName: "hole1", PeerNamespace: netlink.NsFd(hole.netns.Fd()),
	}))
	link, err := netlink.LinkByName("hole0")
	must(t, err)
	must(t, netlink.LinkSetUp(link))
	must(t, netlink.LinkSetARPOff(link))
	must(t, inside(hole.Path(), func() error {
		l, err := netlink.LinkByName("hole1")
		must(t, err)
		return netlink.LinkSetUp(l)
	}))
	_, dst, err := net.ParseCIDR("203.0.113.0/24")
	must(t, err)
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst}))

	n, err := newGateway(t, Options{}).Namespace(t.Context())
	must(t, err)
	dialled := make(chan error, 1)
	go func() {
		_, err := dialFrom(t, n.Path(), "tcp", "203.0.113.1:80")
		dialled <- err
	}()
	eventually(t, "the gateway dials", func() bool {
		n.wire.tcp.mu.Lock()
		defer n.wire.tcp.mu.Unlock()
		return len(n.wire.tcp.pending) == 1
	})
	select {
	case err := <-dialled:
		t.Errorf("a silent destination answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	must(t, n.Close())
	if err := <-dialled; !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dial during close: got %v, want connection refused", err)
	}
}

func TestClosedGateway(t *testing.T) {
	newWorld(t)
	g, err := New(Options{})
	must(t, err)
	must(t, g.Close())
	must(t, g.Close())
	if _, err := g.Namespace(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("got %v, want %v", err, errClosed)
	}
}
