package runner

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// talk is the runner's end of one agent's socket: it sends frames, and hands
// those that come to the command of their nonce.
type talk struct {
	conn *net.UnixConn

	writing   sync.Mutex
	mu        sync.Mutex
	waiting   map[wire.Nonce]chan wire.Body
	terminals map[wire.Nonce]*os.File // that came, and that nobody took yet
	reading   bool
	ended     chan struct{} // closed when nothing more will come
}

func newTalk(c *net.UnixConn) *talk {
	return &talk{conn: c, waiting: map[wire.Nonce]chan wire.Body{}, terminals: map[wire.Nonce]*os.File{}, ended: make(chan struct{})}
}

// begin sends an Exec with the command's ends of its pipes, and gives what the
// agent will say about it. The reader starts with the first command: a sandbox
// that waits costs no goroutine.
func (t *talk) begin(x *wire.Exec, pipes ...*os.File) (<-chan wire.Body, error) {
	_, _ = rand.Read(x.Nonce[:])      // never fails
	news := make(chan wire.Body, 2+1) // Started, then Done or Refused; an agent that says more is not waited for
	t.mu.Lock()
	t.waiting[x.Nonce] = news
	if !t.reading {
		t.reading = true
		go t.read()
	}
	t.mu.Unlock()
	if err := t.send(x, pipes...); err != nil {
		t.forget(x.Nonce)
		return nil, err
	}
	return news, nil
}

func (t *talk) forget(n wire.Nonce) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiting, n)
}

// terminal is the one that the agent opened for a command which has started; nil
// when it did not. The caller closes it.
func (t *talk) terminal(n wire.Nonce) *os.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.terminals[n]
	delete(t.terminals, n)
	return f
}

// send writes one frame, with files beside its first byte where there are any.
func (t *talk) send(b wire.Body, pass ...*os.File) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	frame := wire.Encode(b)
	if len(pass) == 0 {
		_, err := t.conn.Write(frame)
		return err
	}
	fds := make([]int, len(pass))
	for i, f := range pass {
		fds[i] = int(f.Fd())
	}
	n, _, err := t.conn.WriteMsgUnix(frame[:min(len(frame), 4096)], unix.UnixRights(fds...), nil)
	if err == nil && n < len(frame) {
		_, err = t.conn.Write(frame[n:])
	}
	return err
}

// read takes frames in until the socket ends, or says what no agent would. A
// frame that carries nobody's nonce is as good as none.
func (t *talk) read() {
	defer close(t.ended)
	for {
		body, nonce, file, err := t.frame()
		if err != nil {
			return
		}
		t.mu.Lock()
		news := t.waiting[nonce]
		if file != nil && (news == nil || t.terminals[nonce] != nil) {
			drop(file)
		} else if file != nil {
			t.terminals[nonce] = file
		}
		if news != nil {
			select {
			case news <- body:
			default:
			}
		}
		t.mu.Unlock()
	}
}

// frame takes one frame from the agent, and the file that came with it.
func (t *talk) frame() (_ wire.Body, _ wire.Nonce, file *os.File, err error) {
	defer func() {
		if err != nil && file != nil {
			drop(file)
		}
	}()
	var head [wire.HeaderSize]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, on, _, _, err := t.conn.ReadMsgUnix(head[:], oob)
	if err != nil {
		return nil, wire.Nonce{}, nil, err
	}
	file = passedFile(oob[:on])
	if n == 0 {
		return nil, wire.Nonce{}, file, io.EOF
	}
	if _, err := io.ReadFull(t.conn, head[n:]); err != nil {
		return nil, wire.Nonce{}, file, err
	}
	kind, size, err := wire.ParseHeader(head[:])
	if err != nil {
		return nil, wire.Nonce{}, file, err
	}
	if size > 64<<10 {
		return nil, wire.Nonce{}, file, wire.ErrMalformed
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(t.conn, data); err != nil {
		return nil, wire.Nonce{}, file, err
	}
	body, nonce, err := decode(kind, data)
	return body, nonce, file, err
}

func decode(kind byte, data []byte) (wire.Body, wire.Nonce, error) {
	switch kind {
	case wire.KindStarted:
		b := &wire.Started{}
		err := wire.Decode(data, b)
		return b, b.Nonce, err
	case wire.KindDone:
		b := &wire.Done{}
		err := wire.Decode(data, b)
		return b, b.Nonce, err
	case wire.KindRefused:
		b := &wire.Refused{}
		err := wire.Decode(data, b)
		return b, b.Nonce, err
	}
	return nil, wire.Nonce{}, wire.ErrMalformed
}

// passedFile is the file in a control message; nil when there is none.
func passedFile(oob []byte) *os.File {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) == 0 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) == 0 {
		return nil
	}
	_ = unix.SetNonblock(fds[0], true) // for Go's poller; without it a read holds a thread
	return os.NewFile(uintptr(fds[0]), "terminal")
}

// cut ends the agent, and with it everything in the sandbox. What waits for the
// agent sees the end of its socket.
func (t *talk) cut() {
	_ = t.conn.CloseRead() // either fails only where both have happened already
	_ = t.conn.CloseWrite()
}

// errSilent is an agent that ended without a word about a command.
var errSilent = errors.New("its agent ended without a completion record")

// output is the pipe of one command and what was read from it.
type output struct {
	store *store
	r     *os.File
	done  chan error
}

// newOutput gives the end that a command writes to. The caller closes it once
// it is passed on.
func newOutput(to io.Writer, limit int64) (*output, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	o := &output{store: newStore(to, limit), r: r, done: make(chan error, 1)}
	go func() {
		defer drop(r)
		_, err := io.Copy(o.store, onlyReader{r})
		o.done <- err
	}()
	return o, w, nil
}

// onlyReader hides the file's own way of copying: the store must see every byte.
type onlyReader struct{ io.Reader }
