package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The addresses inside are the same in every namespace; namespaces never meet.
// They are taken from private ranges at random, so that they hide next to
// nothing of a real network.
var (
	inside4  = netip.MustParsePrefix("10.213.77.0/30")
	inside6  = netip.MustParsePrefix("fdb9:1a5c:7c31::/126")
	gateway4 = netip.MustParseAddr("10.213.77.1") // also the name server
	gateway6 = netip.MustParseAddr("fdb9:1a5c:7c31::1")
	guest4   = netip.MustParseAddr("10.213.77.2")
	guest6   = netip.MustParseAddr("fdb9:1a5c:7c31::2")
)

// mtu is the largest a TUN device takes. Packets never leave this machine as
// they are, so large ones cost nothing and save most of the work per byte.
const mtu = 65535

// lifetime says what becomes of a device when its file is closed.
type lifetime bool

const (
	// bound devices go when the file is closed, which blocks for some 20 ms.
	bound lifetime = false
	// persistent devices go with their namespace, in the kernel's own time.
	persistent lifetime = true
)

// device is a TUN device inside a namespace: what a process there sends is read
// here, one IP packet at a time.
type device struct {
	file *os.File
	conn syscall.RawConn
}

// openDevice makes a device in the namespace of this thread and configures it.
func openDevice(l layout, life lifetime) (*device, error) {
	// The file must be a TUN device before the runtime's poller sees it, so it
	// becomes an os.File last.
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w; load the tun module (modprobe tun)", err)
	}
	name, err := becomeTUN(fd, life)
	if err == nil {
		err = l.configure(name)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	d := &device{file: os.NewFile(uintptr(fd), "/dev/net/tun")}
	if d.conn, err = d.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, d.file.Close())
	}
	return d, nil
}

// becomeTUN makes fd the other end of a new device and returns its name: eth0,
// or the next that is free.
func becomeTUN(fd int, life lifetime) (string, error) {
	req, err := unix.NewIfreq("eth%d")
	if err != nil {
		return "", err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return "", fmt.Errorf("make TUN device: %w", err)
	}
	if life == persistent {
		if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
			return "", fmt.Errorf("make TUN device: %w", err)
		}
	}
	return req.Name(), nil
}

// read waits for a packet and returns it in one of pool's buffers, which the
// caller gives back.
func (d *device) read(pool *bufferPool) (buf *buffer, n int, err error) {
	return readWhenReady(d.conn, pool, 0)
}

// write sends one packet, given in pieces. A packet the kernel does not take is
// lost, as on any wire.
func (d *device) write(pieces ...[]byte) error {
	var err error
	waitErr := d.conn.Write(func(fd uintptr) bool {
		_, err = unix.Writev(int(fd), pieces)
		return true
	})
	return errors.Join(waitErr, err)
}

// interrupt makes a waiting read return.
func (d *device) interrupt() error { return d.file.SetReadDeadline(time.Unix(1, 0)) }

func (d *device) Close() error { return d.file.Close() }
