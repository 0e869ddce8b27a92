package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace that lives as long as this process holds it
// open and somebody is in it.
type Namespace struct {
	netns *os.File
	path  string
	wire  *wire // nil: only lo

	once sync.Once
	err  error
}

// Path is where another process can join the namespace, for the network
// namespace of an OCI runtime spec. It names an open file of this process, so
// nothing is left of it after kill -9. It is valid until Close: later the same
// path may name another file.
func (n *Namespace) Path() string { return n.path }

// Close cuts the namespace off. The kernel removes it once the last process in
// it is gone. A second call does nothing.
func (n *Namespace) Close() error {
	n.once.Do(func() {
		if n.wire != nil {
			n.err = n.wire.Close()
			n.wire.g.forget(n)
		}
		n.err = errors.Join(n.err, n.netns.Close())
	})
	return n.err
}

// Loopback makes a network namespace with only lo, for steps and tests without
// network: every call to elsewhere fails at once. ctx covers the making.
func Loopback(ctx context.Context) (*Namespace, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("make loopback namespace: %w", context.Cause(ctx))
	}
	var netns *os.File
	err := onThread(unshareNetwork, func() (err error) {
		if err := configureLoopback(); err != nil {
			return err
		}
		netns, err = openCurrent()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make loopback namespace: %w", err)
	}
	return hold(netns), nil
}

func hold(netns *os.File) *Namespace {
	return &Namespace{netns: netns, path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), netns.Fd())}
}

// newNamespace makes a namespace with a wired device.
func newNamespace(l layout) (netns *os.File, tun *device, err error) {
	err = onThread(unshareNetwork, func() (err error) {
		if netns, err = openCurrent(); err != nil {
			return err
		}
		tun, err = openDevice(l, persistent)
		return err
	})
	if err != nil {
		if netns != nil {
			err = errors.Join(err, netns.Close())
		}
		return nil, nil, err
	}
	return netns, tun, nil
}

// attachDevice makes a wired device in a namespace that exists.
func attachDevice(path string, l layout) (tun *device, err error) {
	netns, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = netns.Close() }()
	err = onThread(func() error { return enterNetwork(netns) }, func() (err error) {
		tun, err = openDevice(l, bound)
		return err
	})
	return tun, err
}

// onThread runs do on a thread that has entered another network namespace. The
// thread comes back to the host's namespace, or else ends with its goroutine, so
// that no other goroutine ever runs in the wrong one.
func onThread(enter, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		host, err := openCurrent()
		if err != nil {
			done <- err
			return
		}
		if err = enter(); err == nil {
			err = do()
		}
		if unix.Setns(int(host.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- errors.Join(err, host.Close())
	}()
	return <-done
}

func unshareNetwork() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare network namespace: %w; run as root", err)
	}
	return nil
}

// openCurrent opens the network namespace of this thread.
func openCurrent() (*os.File, error) {
	return os.Open("/proc/thread-self/ns/net")
}
