package runner_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// victim is a host to be attacked: a network namespace with a service on its
// loopback device, one at the address where clouds keep their metadata, one on
// an abstract unix socket, and a segment of shared memory. The machine's own
// namespace is left alone.
type victim struct {
	netns    string
	loopback string // address of a service
	metadata string
	abstract string
	shm      int    // key
	disk     uint64 // a block device
}

// off are defences in the words of the weak helper: without a network namespace
// of its own a sandbox is in the victim's.
func (v victim) off(defences []string) []string {
	var off []string
	for _, d := range defences {
		if d == netNS {
			d += "=" + v.netns
		}
		off = append(off, d)
	}
	return off
}

func newVictim(t *testing.T) victim {
	t.Helper()
	v := victim{abstract: fmt.Sprint("@slipway-victim-", os.Getpid()), shm: 0x510b0000 | os.Getpid()&0xffff}
	v.disk = newDisk(t)
	id, err := unix.SysvShmGet(v.shm, 4096, unix.IPC_CREAT|unix.IPC_EXCL|0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	ready, over := make(chan error), make(chan struct{})
	t.Cleanup(func() { close(over) })
	go func() {
		runtime.LockOSThread() // never unlocked: the namespace ends with the thread
		stop, err := v.listen()
		ready <- err
		<-over
		stop()
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	return v
}

// listen makes the namespace and its services, on a thread that is the caller's alone.
func (v *victim) listen() (stop func(), err error) {
	var open []net.Listener
	stop = func() {
		for _, l := range open {
			_ = l.Close()
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return stop, err
	}
	v.netns = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
	for _, words := range [][]string{{"link", "set", "lo", "up"}, {"addr", "add", "169.254.169.254/32", "dev", "lo"}} {
		if out, err := exec.Command(programs.busybox, append([]string{"ip"}, words...)...).CombinedOutput(); err != nil {
			return stop, fmt.Errorf("ip %v: %w: %s", words, err, out)
		}
	}
	for _, at := range [][2]string{{"tcp", "127.0.0.1:0"}, {"tcp", "169.254.169.254:80"}, {"unix", v.abstract}} {
		l, err := net.Listen(at[0], at[1])
		if err != nil {
			return stop, err
		}
		open = append(open, l)
		go func() { // ends with the listener
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.Close()
			}
		}()
	}
	v.loopback, v.metadata = open[0].Addr().String(), open[1].Addr().String()
	return stop, nil
}

// newDisk attaches a file as a block device, and gives its number: the disks
// that this machine lives on are not to be tried at.
func newDisk(t *testing.T) uint64 {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		loop, err := os.OpenFile(fmt.Sprint("/dev/loop", n), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(file.Fd()))
		if errors.Is(err, unix.EBUSY) { // somebody else was quicker
			_ = loop.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0), loop.Close()); err != nil {
				t.Error(err)
			}
		})
		var st unix.Stat_t
		if err := unix.Fstat(int(loop.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Rdev
	}
}
