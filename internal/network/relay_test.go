package network

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const server = "198.51.100.10:80"

// random is n bytes that differ at every place.
func random(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), n) }

func hash(r io.Reader) (sum []byte, n int64, err error) {
	h := sha256.New()
	n, err = io.Copy(h, r)
	return h.Sum(nil), n, err
}

func TestLargeTransfer(t *testing.T) {
	const size = 100 << 20
	w := newWorld(t)
	listen(t, w.ns.Path(), 80, func(c *net.TCPConn) error { return send(c, random(size)) })
	listen(t, w.ns.Path(), 81, func(c *net.TCPConn) error {
		sum, _, err := hash(c)
		return errors.Join(err, send(c, bytes.NewReader(sum)))
	})
	n := newSandbox(t, newGateway(t, Options{}))
	want, _, err := hash(random(size))
	must(t, err)

	c, err := dialFrom(t, n.Path(), "tcp", server)
	must(t, err)
	defer c.Close()
	got, k, err := hash(c)
	if err != nil || k != size || !bytes.Equal(got, want) {
		t.Errorf("in: %d bytes, %v, sha256 %x, want %x", k, err, got, want)
	}

	c, err = dialFrom(t, n.Path(), "tcp", "198.51.100.10:81")
	must(t, err)
	defer c.Close()
	must(t, send(c, random(size)))
	sum, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(sum, want) {
		t.Errorf("out: %v, sha256 %x, want %x", err, sum, want)
	}
}

// Each side may end its half first and still be told what the other has to say.
func TestHalfClose(t *testing.T) {
	w := newWorld(t)
	heard := make(chan string, 1)
	listen(t, w.ns.Path(), 80, func(c *net.TCPConn) error {
		err := send(c, strings.NewReader("first"))
		all, rerr := io.ReadAll(c)
		heard <- fmt.Sprint(string(all), rerr)
		return err
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
	listen(t, w.ns.Path(), 80, func(c *net.TCPConn) error {
		_, err := io.ReadFull(c, make([]byte, 5))
		return errors.Join(err, c.SetLinger(0))
	})
	listen(t, w.ns.Path(), 81, func(c *net.TCPConn) error {
		_, err := c.Write([]byte("hello"))
		_, rerr := io.Copy(io.Discard, c)
		ended <- rerr
		return err
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
	listen(t, w.ns.Path(), 80, func(c *net.TCPConn) error {
		chunk := make([]byte, 64<<10)
		for {
			k, err := c.Write(chunk)
			sent.Add(int64(k))
			if err != nil {
				return err
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
	go func() { _ = send(c, random(size)) }() // the answer tells
	want, _, err := hash(random(size))
	must(t, err)
	got, k, err := hash(c)
	if err != nil || k != size || !bytes.Equal(got, want) {
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
			go func() { _ = send(c, bytes.NewReader(sent)) }() // the answer tells
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
