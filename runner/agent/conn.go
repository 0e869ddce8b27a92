package agent

import (
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// conn is a socket on which commands are asked for and told of.
type conn struct {
	fd      int
	waiter  *waiter    // nil: the main thread waits itself
	sending sync.Mutex // commands end at the same time
}

// serve answers frames until the socket ends. On the main one the main command
// comes first, and once; on the others there are only commands beside it.
func (js *jobs) serve(c *conn, main bool) int {
	started := !main
	for {
		if main {
			js.attend(c.fd)
		}
		kind, body, files, err := c.receive()
		if err != nil {
			return 0 // whoever asked is gone, or not ours: either way this is over
		}
		switch kind {
		case wire.KindExec:
			var x wire.Exec
			if wire.Decode(body, &x) != nil || len(files) != wants(&x) || x.Beside != started {
				dropFDs(files)
				return 2
			}
			started = true
			if main {
				js.start(c, &x, files)
			} else {
				js.byMain(func() { js.start(c, &x, files) })
			}
			continue
		case wire.KindConnect:
			if !main || len(files) != 1 {
				dropFDs(files)
				return 2
			}
			js.connect(files[0])
			continue
		}
		dropFDs(files)
		switch kind {
		case wire.KindStop:
			if !main {
				return 2
			}
			js.stop()
		case wire.KindSignal:
			var s wire.Signal
			if wire.Decode(body, &s) != nil {
				return 2
			}
			js.signal(&s)
		default:
			return 2
		}
	}
}

// connect serves one more socket, and ends what was started over it with it.
func (js *jobs) connect(fd int) {
	if js.wake < 0 {
		var err error
		if js.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
			js.wake = -1
			dropFD(fd)
			return
		}
	}
	c := &conn{fd: fd, waiter: newWaiter(fd)}
	go func() {
		_ = js.serve(c, false)
		js.hangUp(c)
		c.close()
	}()
}

// byMain has the main thread do something, and waits for it. That thread starts
// all commands: it alone has laid off every privilege.
func (js *jobs) byMain(do func()) {
	done := make(chan struct{})
	js.asked <- func() { do(); close(done) }
	_, _ = unix.Write(js.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // blocks only beyond 2^64 wakings
	<-done
}

// attend does on the main thread what is asked of it, until there is something
// to read on the main socket. Before the first further socket it only returns.
func (js *jobs) attend(fd int) {
	for js.wake >= 0 {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(js.wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		}
		if fds[1].Revents != 0 {
			var n [8]byte
			_, _ = unix.Read(js.wake, n[:])
			js.doAsked()
		}
		if fds[0].Revents != 0 {
			return
		}
	}
}

func (js *jobs) doAsked() {
	for {
		select {
		case do := <-js.asked:
			do()
		default:
			return
		}
	}
}

// wants is how many files come with an Exec.
func wants(x *wire.Exec) int {
	if x.TTY {
		return 0
	}
	n := 1
	if x.Stdin {
		n++
	}
	if x.Stderr {
		n++
	}
	return n
}

// mostFiles come with one frame.
const mostFiles = 3

// receive reads one frame and the files that came with it.
func (c *conn) receive() (kind byte, body []byte, files []int, err error) {
	var head [wire.HeaderSize]byte
	oob := make([]byte, unix.CmsgSpace(4*mostFiles))
	for have := 0; have < len(head); {
		c.wait()
		n, on, _, _, err := unix.Recvmsg(c.fd, head[have:], oob, unix.MSG_CMSG_CLOEXEC)
		if again(err) {
			continue
		}
		if on > 0 {
			files = append(files, passed(oob[:on])...)
		}
		if err != nil || n == 0 {
			dropFDs(files)
			return 0, nil, nil, syscall.EPIPE
		}
		have += n
	}
	kind, size, err := wire.ParseHeader(head[:])
	if err != nil {
		dropFDs(files)
		return 0, nil, nil, err
	}
	body = make([]byte, size)
	for have := 0; have < size; {
		c.wait()
		n, err := unix.Read(c.fd, body[have:])
		if again(err) {
			continue
		}
		if err != nil || n == 0 {
			dropFDs(files)
			return 0, nil, nil, syscall.EPIPE
		}
		have += n
	}
	return kind, body, files, nil
}

func passed(oob []byte) []int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) == 0 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil
	}
	return fds
}

// wait until there is something to read, without holding a thread where the
// runtime can wait.
func (c *conn) wait() {
	if c.waiter != nil {
		_ = c.waiter.raw.Read(func(uintptr) bool { return poll(c.fd, unix.POLLIN) }) // an error is the read's too
	}
}

// send writes a frame whole, with a file beside it unless that is -1. Whoever
// is gone is noticed by the reader.
func (c *conn) send(b wire.Body, file int) {
	c.sending.Lock()
	defer c.sending.Unlock()
	frame := wire.Encode(b)
	for len(frame) > 0 {
		var rights []byte
		if file >= 0 {
			rights = unix.UnixRights(file)
		}
		n, err := unix.SendmsgN(c.fd, frame, rights, nil, 0)
		switch {
		case err == nil:
			frame, file = frame[n:], -1
		case !again(err):
			return
		case c.waiter != nil:
			c.waiter.awaitRoom()
		}
	}
}

// close keeps what is sent later, by commands that end after whoever asked for
// them, from a file that got the number since.
func (c *conn) close() {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.fd = -1
	drop(c.waiter.file)
}

// again says whether a call is to be made once more.
func again(err error) bool { return errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) }
