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

func echo(c *net.TCPConn) error {
	_, err := io.Copy(c, c)
	return err
}

// send writes all of r and ends its half of the connection.
func send(c net.Conn, r io.Reader) error {
	if _, err := io.Copy(c, r); err != nil {
		return err
	}
	return c.(*net.TCPConn).CloseWrite()
}

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
			go func() { _ = send(c, bytes.NewReader(sent)) }() // the answer tells
			got, err := io.ReadAll(c)
			must(t, err)
			if !bytes.Equal(got, sent) {
				t.Errorf("got %d bytes back, sha256 %x; sent %d, %x", len(got), sha256.Sum256(got), len(sent), sha256.Sum256(sent))
			}
		})
	}
}
