package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// Frozen is the sandbox of a failed test that stays as the test left it.
type Frozen struct {
	Name     string    // RUN/TASK
	Services []string  // whose sandboxes stay beside it
	Until    time.Time // when it is removed, unless it is in use
	Users    int       // terminals and commands open in it
	root     string
	helper   string // directory of its helper
}

// ErrNotFrozen means that nothing is kept under that name.
var ErrNotFrozen = errors.New("nothing is kept of it")

// ListFrozen asks the helpers of a runner's root what they keep, in order of name.
func ListFrozen(ctx context.Context, root string) ([]Frozen, error) {
	sockets, err := filepath.Glob(filepath.Join(root, "*", wire.ControlName))
	if err != nil {
		return nil, fmt.Errorf("look for frozen tests: %w", err)
	}
	var all []Frozen
	for _, s := range sockets {
		dir := filepath.Dir(s)
		conn, answer, err := ask(ctx, dir, wire.Asked{Op: wire.AskList})
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) || errors.Is(err, ErrNotFrozen) {
			continue // its helper is dead, or has just ended
		}
		if err != nil {
			return nil, fmt.Errorf("look for frozen tests: %w", err)
		}
		drop(conn)
		for _, f := range answer.Frozen {
			known := Frozen{Name: f.Name, Until: f.Until, Users: f.Users, root: root, helper: dir}
			for _, m := range f.Members[1:] {
				known.Services = append(known.Services, m.Name)
			}
			all = append(all, known)
		}
	}
	slices.SortFunc(all, func(a, b Frozen) int { return compare(a.Name, b.Name) })
	return all, nil
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Thaw removes it, and returns when nothing of it is left.
func (f Frozen) Thaw(ctx context.Context) error {
	conn, _, err := ask(ctx, f.helper, wire.Asked{Op: wire.AskThaw, Name: f.Name})
	if conn != nil {
		drop(conn)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", f.Name, err)
	}
	return nil
}

// Visit opens a way to run commands in it. service is empty for the test's own
// sandbox. The caller closes it; what still runs by then is ended.
func (f Frozen) Visit(ctx context.Context, service string) (*Visit, error) {
	ours, theirs, err := socketpair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer drop(theirs)
	agent, err := unixConn(ours)
	if err != nil {
		return nil, err
	}
	conn, answer, err := ask(ctx, f.helper, wire.Asked{Op: wire.AskAttach, Name: f.Name, Service: service}, int(theirs.Fd()))
	if err != nil {
		drop(agent)
		return nil, fmt.Errorf("open %s: %w", f.Name, err)
	}
	return &Visit{use: conn, talk: newTalk(agent), exec: *answer.Exec}, nil
}

// ask sends one request to a helper, and reads its answer. The connection, which
// counts as a use, is the caller's to close.
func ask(ctx context.Context, dir string, q wire.Asked, pass ...int) (_ *net.UnixConn, a wire.Answer, err error) {
	at, err := os.Open(dir) // a path to it may be longer than a socket's name can be
	if err != nil {
		return nil, a, err
	}
	defer drop(at)
	c, err := new(net.Dialer).DialContext(ctx, "unixpacket", fmt.Sprintf("/proc/self/fd/%d/%s", at.Fd(), wire.ControlName))
	if err != nil {
		return nil, a, err
	}
	conn, ok := c.(*net.UnixConn)
	defer func() {
		if err != nil {
			drop(c)
		}
	}()
	if !ok {
		return nil, a, errors.New("it is no unix socket")
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) }) // an open connection has deadlines
	defer stop()
	data, err := json.Marshal(q)
	if err != nil {
		return nil, a, err
	}
	var oob []byte
	if len(pass) > 0 {
		oob = unix.UnixRights(pass...)
	}
	_, _, err = conn.WriteMsgUnix(data, oob, nil)
	buf, n := make([]byte, wire.MaxMessage), 0
	if err == nil {
		n, err = conn.Read(buf)
	}
	// A helper that ends while it is asked has nothing any more.
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || err == nil && n == 0 {
		return nil, a, ErrNotFrozen
	}
	if err != nil {
		return nil, a, errors.Join(err, context.Cause(ctx))
	}
	if err := json.Unmarshal(buf[:n], &a); err != nil {
		return nil, a, fmt.Errorf("its helper said something that is not JSON: %w", err)
	}
	if a.Error != "" {
		return nil, a, errors.New(a.Error)
	}
	return conn, a, nil
}
