package agent

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// conn is a socket on which commands are asked for and told of.
type conn struct {
	fd      int
	sending sync.Mutex // commands end at the same time
}

// serve answers frames until the socket ends. On the main one the main command
// comes first, and once; on the others there are only commands beside it.
func (js *jobs) serve(c *conn, main bool) int {
	started := !main
	for {
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
			js.start(c, &x, files)
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
	c := &conn{fd: fd}
	go func() {
		_ = js.serve(c, false)
		js.hangUp(c)
		dropFD(fd)
	}()
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
		n, on, _, _, err := unix.Recvmsg(c.fd, head[have:], oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
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
		n, err := unix.Read(c.fd, body[have:])
		if err == unix.EINTR {
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

// send writes a frame whole, with a file beside it unless that is -1. Whoever
// is gone is noticed by the reader.
func (c *conn) send(b wire.Body, file int) {
	c.sending.Lock()
	defer c.sending.Unlock()
	frame := wire.Encode(b)
	for file >= 0 && len(frame) > 0 {
		n, err := unix.SendmsgN(c.fd, frame, unix.UnixRights(file), nil, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		frame, file = frame[n:], -1
	}
	for len(frame) > 0 {
		n, err := unix.Write(c.fd, frame)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		frame = frame[n:]
	}
}
