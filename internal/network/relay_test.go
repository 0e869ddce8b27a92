package network

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const server = "198.51.100.10:80"

// random is n bytes that differ at every place.
func random(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), n) }

func TestLargeTransfer(t *testing.T) {
	const size = 100 << 20
	w := newWorld(t)
	listen(t, w.ns.Path(), 80, func(c *net.TCPConn) { io.Copy(c, random(size)) })
	listen(t, w.ns.Path(), 81, func(c *net.TCPConn) {
		h := sha256.New()
		io.Copy(h, c)
		c.Write(h.Sum(nil))
	})
	n := newSandbox(t, newGateway(t, Options{}))
	want := sha256.New()
	io.Copy(want, random(size))

	c, err := dialFrom(t, n.Path(), "tcp", server)
	must(t, err)
	defer c.Close()
	got := sha256.New()
	k, err := io.Copy(got, c)
	if err != nil || k != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("in: %d bytes, %v, sha256 %x, want %x", k, err, got.Sum(nil), want.Sum(nil))
	}

	c, err = dialFrom(t, n.Path(), "tcp", "198.51.100.10:81")
	must(t, err)
	defer c.Close()
	_, err = io.Copy(c, random(size))
	must(t, err)
	must(t, c.(*net.TCPConn).CloseWrite())
	sum, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(sum, want.Sum(nil)) {
		t.Errorf("out: %v, sha256 %x, want %x", err, sum, want.Sum(nil))
	}
}

// Each side may end its half first and still be told what the other has to say.
func TestHalfClose(t *testing.T) {
	w := newWorld(t)
	heard := make(chan string, 1)
	listen(t, w.ns.Path(), 80, func(c *net.TCPConn) {
		c.Write([]byte("first"))
		c.CloseWrite()
		all, err := io.ReadAll(c)
		heard <- fmt.Sprint(string(all), err)
	})
	n := newSandbox(t, newGateway(t, Options{}))
	c, err := dialFrom(t, n.Path(), "tcp", server)
	must(t, err)
	defer c.Close()
	all, err := io.ReadAll(c)
	if err != nil || string(all) != "first" {
		t.Errorf("got %q, %v", all, err)
	}
	_, err = c.Write([]byte("second"))
	must(t, err)
	c.Close()
	if got := <-heard; got != "second<nil>" {
		t.Errorf("the server heard %q", got)
	}
}

// A connection that breaks on one side breaks on the other.
func TestReset(t *testing.T) {
	w := newWorld(t)
	ended := make(chan error, 1)
	listen(t, w.ns.Path(), 80, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 5))
		c.SetLinger(0)
	})
	listen(t, w.ns.Path(), 81, func(c *net.TCPConn) {
		c.Write([]byte("hello"))
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})
	n := newSandbox(t, newGateway(t, Options{}))
	if err := tryTCP(t, n, server); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset by the server: got %v", err)
	}
	c, err := dialFrom(t, n.Path(), "tcp", "198.51.100.10:81")
	must(t, err)
	_, err = io.ReadFull(c, make([]byte, 5))
	must(t, err)
	must(t, c.(*net.TCPConn).SetLinger(0))
	c.Close()
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset by the client: the server got %v", err)
	}
}

// A reader that does not read stops the sender, and little is held meanwhile.
func TestSlowReader(t *testing.T) {
	w := newWorld(t)
	var sent atomic.Int64
	listen(t, w.ns.Path(), 80, func(c *net.TCPConn) {
		chunk := make([]byte, 64<<10)
		for {
			k, err := c.Write(chunk)
			sent.Add(int64(k))
			if err != nil {
				return
			}
		}
	})
	n := newSandbox(t, newGateway(t, Options{}))
	c, err := dialFrom(t, n.Path(), "tcp", server)
	must(t, err)
	defer c.Close()
	// The sender has stopped once a second brings nothing more.
	var before int64
	eventually(t, "the sender stops", func() bool {
		before = sent.Load()
		time.Sleep(time.Second)
		return before > 0 && sent.Load() == before
	})
	// Kernel buffers of three sockets (6 MiB each at most by tcp_rmem and
	// tcp_wmem) and ours.
	if limit := int64(32 << 20); before > limit {
		t.Errorf("the sender got rid of %d bytes that nobody read", before)
	}
	_, err = io.CopyN(io.Discard, c, before+(8<<20))
	if err != nil {
		t.Errorf("reading on: %v", err)
	}
}

// Both sides send at full speed at once.
func TestBothWays(t *testing.T) {
	const size = 32 << 20
	w := newWorld(t)
	listen(t, w.ns.Path(), 80, echo)
	n := newSandbox(t, newGateway(t, Options{}))
	c, err := dialFrom(t, n.Path(), "tcp", server)
	must(t, err)
	defer c.Close()
	go func() {
		io.Copy(c, random(size))
		c.(*net.TCPConn).CloseWrite()
	}()
	got, want := sha256.New(), sha256.New()
	io.Copy(want, random(size))
	k, err := io.Copy(got, c)
	if err != nil || k != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("%d bytes of %d came back, %v", k, size, err)
	}
}

func TestManyConnections(t *testing.T) {
	const many, size = 500, 64 << 10
	w := newWorld(t)
	listen(t, w.ns.Path(), 80, echo)
	n := newSandbox(t, newGateway(t, Options{}))
	conns := make([]net.Conn, many) // all open at the same time
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			c, err := dialFrom(t, n.Path(), "tcp", server)
			if err != nil {
				t.Error(err)
				return
			}
			conns[i] = c
		})
	}
	wg.Wait()
	for i, c := range conns {
		if c == nil {
			continue
		}
		wg.Go(func() {
			defer c.Close()
			sent := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, size/2)
			go func() {
				c.Write(sent)
				c.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("connection %d: %d bytes of %d came back, %v", i, len(got), size, err)
			}
		})
	}
	wg.Wait()
	eventually(t, "all connections are gone", func() bool {
		n.wire.tcp.mu.Lock()
		defer n.wire.tcp.mu.Unlock()
		return n.wire.tcp.open == 0
	})
}
