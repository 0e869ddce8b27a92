package runner

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// helper is the running slipway-sandbox. It ends when its socket does, however
// this process dies, and removes its sandboxes first, less those that are frozen.
type helper struct {
	cmd   *exec.Cmd
	conn  *net.UnixConn
	log   zerolog.Logger
	ready chan struct{} // closed when it said whether it started
	ended chan struct{} // closed when it will answer no more
	down  error         // why; set before ended is closed

	mu       sync.Mutex
	seq      uint64
	pending  map[uint64]chan wire.Reply
	boxes    map[*Sandbox]struct{}
	lingers  bool // something is frozen: it may outlive us
	startErr error

	readers sync.WaitGroup
}

// startHelper starts the program in a mount namespace of its own: its overlays
// are seen nowhere else, and go when it goes.
func startHelper(o Options) (*helper, error) {
	ours, theirs, err := socketpair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	defer drop(theirs)
	conn, err := unixConn(ours)
	if err != nil {
		return nil, err
	}
	h := &helper{
		conn: conn, log: o.Log, ready: make(chan struct{}), ended: make(chan struct{}),
		pending: map[uint64]chan wire.Reply{}, boxes: map[*Sandbox]struct{}{},
	}
	h.cmd = exec.Command(o.Helper, "-root", o.Root, "-cgroup", o.Cgroup, "-agent", o.Agent)
	h.cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	h.cmd.ExtraFiles = []*os.File{theirs}
	// A session of its own: a Ctrl-C at the terminal is for slipway to answer.
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Setsid: true}
	stderr, err := h.cmd.StderrPipe()
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		drop(conn)
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("start %s: %w; sandboxes need root (CAP_SYS_ADMIN)", o.Helper, err)
		}
		return nil, fmt.Errorf("start %s: %w; run `make build`, which makes it", o.Helper, err)
	}
	h.readers.Add(2)
	go h.relay(stderr)
	go h.receive()
	return h, nil
}

// receive hands replies to their callers until the helper is gone.
func (h *helper) receive() {
	defer h.readers.Done()
	buf := make([]byte, wire.MaxMessage)
	for {
		n, err := h.conn.Read(buf)
		if err != nil || n == 0 {
			h.finish()
			return
		}
		var r wire.Reply
		if err := json.Unmarshal(buf[:n], &r); err != nil {
			h.log.Error().Err(err).Msg("the sandbox helper said something that is not JSON")
			continue
		}
		h.mu.Lock()
		if r.Seq == 0 {
			switch {
			case r.Protocol != wire.Protocol:
				h.startErr = errors.New("slipway-sandbox is of another build than slipway; install them together (`make build` makes both)")
			case r.Error != "":
				h.startErr = errors.New(r.Error)
			}
			close(h.ready)
		}
		c := h.pending[r.Seq]
		delete(h.pending, r.Seq)
		h.mu.Unlock()
		if c != nil {
			c <- r
		}
	}
}

// finish tells everyone who waits that the helper is gone, and lets the agents
// go: with it went the one who could kill them.
func (h *helper) finish() {
	h.mu.Lock()
	h.down = h.startErr
	if h.down == nil {
		h.down = errors.New("the sandbox helper ended")
	}
	close(h.ended)
	h.mu.Unlock()
	h.cutAll()
}

// cutAll closes the sockets of all agents, which then end.
func (h *helper) cutAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.boxes {
		s.talk.cut()
	}
}

func (h *helper) adopt(s *Sandbox) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.boxes[s] = struct{}{}
	select {
	case <-h.ended:
		s.talk.cut()
	default:
	}
}

func (h *helper) abandon(s *Sandbox) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.boxes, s)
}

// call asks and waits for the answer. ctx covers the waiting, but for a Create:
// what is being made must be known to be removed, and it is a matter of
// milliseconds.
func (h *helper) call(ctx context.Context, c wire.Call, pass ...int) (wire.Reply, error) {
	select {
	case <-h.ready:
	case <-h.ended:
		return wire.Reply{}, h.down
	case <-ctx.Done():
		return wire.Reply{}, context.Cause(ctx)
	}
	answer := make(chan wire.Reply, 1)
	h.mu.Lock()
	if h.startErr != nil {
		h.mu.Unlock()
		return wire.Reply{}, h.startErr
	}
	h.seq++
	c.Seq = h.seq
	h.pending[c.Seq] = answer
	h.mu.Unlock()
	if err := h.send(c, pass...); err != nil {
		return wire.Reply{}, err
	}
	if c.Op == wire.Create || c.Op == wire.Freeze {
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case r := <-answer:
		if r.Error != "" {
			return r, errors.New(r.Error)
		}
		return r, nil
	case <-h.ended:
		return wire.Reply{}, h.down
	case <-ctx.Done():
		return wire.Reply{}, context.Cause(ctx)
	}
}

func (h *helper) send(c wire.Call, pass ...int) error {
	msg, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("ask the sandbox helper: %w", err)
	}
	if len(msg) > wire.MaxMessage {
		return fmt.Errorf("a sandbox is described by %d bytes (its layers, binds and environment), which is more than %d; use fewer", len(msg), wire.MaxMessage)
	}
	var oob []byte
	if len(pass) > 0 {
		oob = unix.UnixRights(pass...)
	}
	if _, _, err := h.conn.WriteMsgUnix(msg, oob, nil); err != nil {
		return fmt.Errorf("ask the sandbox helper: %w", err)
	}
	return nil
}

// relay passes the helper's own words on to the operator's log.
func (h *helper) relay(stderr io.Reader) {
	defer h.readers.Done()
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if json.Valid(lines.Bytes()) {
			h.log.Warn().RawJSON("helper", lines.Bytes()).Send()
		} else {
			h.log.Warn().Str("helper", lines.Text()).Send()
		}
	}
	_, _ = io.Copy(io.Discard, stderr) // a line too long to log must not stop the helper
}

// closeLimit is how long the helper may take to remove what is left.
const closeLimit = time.Minute

// close ends the helper and waits for it; one that keeps failed tests lets go of
// its socket and its standard error once it has removed everything else.
func (h *helper) close() error {
	_ = h.conn.CloseWrite() // it reads the end, and answers what it still owes
	late := time.AfterFunc(closeLimit, func() { _ = h.cmd.Process.Kill() })
	defer late.Stop()
	h.readers.Wait()
	cerr := h.conn.Close()
	h.mu.Lock()
	lingers := h.lingers
	h.mu.Unlock()
	if lingers {
		go func() { _ = h.cmd.Wait() }() // for a process that lives longer than what is kept
		return cerr
	}
	err := h.cmd.Wait()
	if err != nil {
		return fmt.Errorf("the sandbox helper left something behind: %w; the next start removes it", err)
	}
	return cerr
}

// socketpair makes two connected sockets that no child inherits by accident.
func socketpair(kind int) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs"), nil
}

// unixConn puts a socket under Go's poller and closes the file it came from.
func unixConn(f *os.File) (*net.UnixConn, error) {
	defer drop(f)
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("use a socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("use a socket: it is no unix socket")
	}
	return u, nil
}
