package network

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"net"
	"os"
	"testing"

	"github.com/rs/zerolog"
)

func echo(c *net.TCPConn) { io.Copy(c, c) }

func testLog(tb testing.TB) zerolog.Logger {
	if os.Getenv("SLIPWAY_NETWORK_TEST_LOG") == "" {
		return zerolog.Nop()
	}
	return zerolog.New(zerolog.NewTestWriter(tb))
}

func TestTCP(t *testing.T) {
	w := newWorld(t)
	listen(t, w.ns.Path(), 80, echo)
	n := newSandbox(t, newGateway(t, Options{Log: testLog(t)}))
	for _, address := range []string{"198.51.100.10:80", "10.20.0.5:80", "[2001:db8::10]:80"} {
		t.Run(address, func(t *testing.T) {
			c, err := dialFrom(t, n.Path(), "tcp", address)
			must(t, err)
			defer c.Close()
			sent := make([]byte, 3<<20)
			rand.Read(sent)
			go func() {
				c.Write(sent)
				c.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			must(t, err)
			if !bytes.Equal(got, sent) {
				t.Errorf("got %d bytes back, sha256 %x; sent %d, %x", len(got), sha256.Sum256(got), len(sent), sha256.Sum256(sent))
			}
		})
	}
}

func BenchmarkNamespace(b *testing.B) {
	newWorld(b)
	g := newGateway(b, Options{})
	for b.Loop() {
		n, err := g.Namespace(b.Context())
		must(b, err)
		must(b, n.Close())
	}
}

func BenchmarkTransfer(b *testing.B) {
	w := newWorld(b)
	chunk := make([]byte, 1<<20)
	listen(b, w.ns.Path(), 80, func(c *net.TCPConn) {
		for {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	})
	listen(b, w.ns.Path(), 81, func(c *net.TCPConn) { io.Copy(struct{ io.Writer }{io.Discard}, c) })
	n := newSandbox(b, newGateway(b, Options{}))
	buf := make([]byte, 1<<20)
	b.Run("in", func(b *testing.B) {
		c, err := dialFrom(b, n.Path(), "tcp", "198.51.100.10:80")
		must(b, err)
		defer c.Close()
		b.SetBytes(1 << 20)
		for b.Loop() {
			if _, err := io.ReadFull(c, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("out", func(b *testing.B) {
		c, err := dialFrom(b, n.Path(), "tcp", "198.51.100.10:81")
		must(b, err)
		defer c.Close()
		b.SetBytes(1 << 20)
		for b.Loop() {
			if _, err := c.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
