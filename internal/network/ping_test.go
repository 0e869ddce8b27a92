package network

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// ping sends an echo request from within the sandbox and waits for its answer.
func ping(t *testing.T, n *Namespace, to unix.Sockaddr) error {
	t.Helper()
	return inside(n.Path(), func() error {
		family, proto, request := unix.AF_INET, unix.IPPROTO_ICMP, byte(8)
		if _, ok := to.(*unix.SockaddrInet6); ok {
			family, proto, request = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30})) // a blocked thread hears no deadline
		if err := unix.Connect(fd, to); err != nil {                                                   // a connected socket is told of errors
			return err
		}
		if _, err := unix.Write(fd, []byte{request, 0, 0, 0, 0, 0, 0, 1, 'p', 'i', 'n', 'g'}); err != nil {
			return err
		}
		_, err = unix.Read(fd, make([]byte, 64))
		return err
	})
}

func TestPing(t *testing.T) {
	newWorld(t)
	n := newSandbox(t, newGateway(t, Options{}))
	for _, gw := range []unix.Sockaddr{&unix.SockaddrInet4{Addr: gateway4.As4()}, &unix.SockaddrInet6{Addr: gateway6.As16()}} {
		if err := ping(t, n, gw); err != nil {
			t.Errorf("ping the gateway %+v: %v", gw, err)
		}
	}
	// The world is not for ping to reach; it must not look as if it were there.
	if err := ping(t, n, &unix.SockaddrInet4{Addr: [4]byte{198, 51, 100, 10}}); !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("ping the world: got %v, want no route to host", err)
	}
	if err := ping(t, n, &unix.SockaddrInet6{Addr: [16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 0x10}}); !errors.Is(err, unix.EACCES) {
		t.Errorf("ping the world: got %v, want permission denied", err)
	}
}
