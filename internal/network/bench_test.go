package network

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// A pause between rounds keeps the kernel's own removal of namespaces, which
// runs behind, out of the figure.
func BenchmarkNamespace(b *testing.B) {
	newWorld(b)
	for name, ready := range map[string]int{"made": 0, "ready": 2} {
		b.Run(name, func(b *testing.B) {
			g := newGateway(b, Options{Ready: ready})
			for b.Loop() {
				n, err := g.Namespace(b.Context())
				must(b, err)
				must(b, n.Close())
				b.StopTimer()
				time.Sleep(30 * time.Millisecond)
				b.StartTimer()
			}
		})
	}
}

// BenchmarkMemory tells what this process holds for each namespace, idle and
// with one open connection.
func BenchmarkMemory(b *testing.B) {
	const many = 50
	w := newWorld(b)
	listen(b, w.ns.Path(), 80, echo)
	g := newGateway(b, Options{})
	held := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // the first one only ages pools
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc+m.StackInuse) / many / 1024
	}
	for b.Loop() {
		before := held()
		namespaces := make([]*Namespace, many)
		for i := range namespaces {
			n, err := g.Namespace(b.Context())
			must(b, err)
			namespaces[i] = n
		}
		idle := held()
		for _, n := range namespaces {
			c, err := dialFrom(b, n.Path(), "tcp", server)
			must(b, err)
			defer c.Close()
			_, err = c.Write([]byte("hello"))
			must(b, err)
			_, err = io.ReadFull(c, make([]byte, 5))
			must(b, err)
		}
		active := held()
		b.ReportMetric(idle-before, "KiB/idle")
		b.ReportMetric(active-before, "KiB/active")
		for _, n := range namespaces {
			must(b, n.Close())
		}
	}
}

func BenchmarkTransfer(b *testing.B) {
	w := newWorld(b)
	chunk := make([]byte, 1<<20)
	listen(b, w.ns.Path(), 80, func(c *net.TCPConn) error {
		for {
			if _, err := c.Write(chunk); err != nil {
				return err
			}
		}
	})
	listen(b, w.ns.Path(), 81, func(c *net.TCPConn) error {
		_, err := io.Copy(struct{ io.Writer }{io.Discard}, c)
		return err
	})
	n := newSandbox(b, newGateway(b, Options{}))
	buf := make([]byte, 1<<20)
	for name, path := range map[string]string{"in": n.Path(), "in without gateway": "/proc/self/ns/net"} {
		b.Run(name, func(b *testing.B) {
			c, err := dialFrom(b, path, "tcp", "198.51.100.10:80")
			must(b, err)
			defer c.Close()
			b.SetBytes(1 << 20)
			for b.Loop() {
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
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
