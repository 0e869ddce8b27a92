package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// control is the socket on which frozen sandboxes are asked for. Only root gets
// to it: a terminal in a sandbox is a way to everything the test could reach.
type control struct {
	listener *net.UnixListener
	asking   sync.WaitGroup
}

// listen opens the socket. Its name is given by way of an open directory: that of
// a root may be longer than a socket's name can be (unix(7)).
func (h *helper) listen() (*control, error) {
	dir, err := os.Open(h.session.dir)
	if err != nil {
		return nil, fmt.Errorf("listen for who asks for a terminal: %w", err)
	}
	defer drop(dir)
	name := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), wire.ControlName)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: name, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen for who asks for a terminal: %w", err)
	}
	l.SetUnlinkOnClose(false) // it goes with its directory
	if err := os.Chmod(filepath.Join(h.session.dir, wire.ControlName), 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	c := &control{listener: l}
	c.asking.Go(func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return // closed
			}
			c.asking.Go(func() { h.serveAsker(conn) })
		}
	})
	return c, nil
}

// close ends the listening. Who is connected has been let go before: nothing is
// frozen any more.
func (c *control) close() {
	if c == nil {
		return
	}
	drop(c.listener)
	c.asking.Wait()
}

// askLimit is how long an asker may take to say what it wants.
const askLimit = 10 * time.Second

// serveAsker answers one request, and counts a use until the asker is gone.
func (h *helper) serveAsker(conn *net.UnixConn) {
	defer drop(conn)
	_ = conn.SetReadDeadline(time.Now().Add(askLimit)) // a connection that is open has deadlines
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, on, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil || n == 0 {
		return
	}
	passed := passedFiles(oob[:on])
	defer dropFiles(passed)
	var q wire.Asked
	if err := json.Unmarshal(buf[:n], &q); err != nil {
		return // none of ours
	}
	switch q.Op {
	case wire.AskList:
		reply(conn, wire.Answer{Frozen: h.listFrozen()})
	case wire.AskThaw:
		reply(conn, h.answerThaw(q.Name))
	case wire.AskAttach:
		h.attach(conn, q, passed)
	default:
		reply(conn, wire.Answer{Error: fmt.Sprintf("unknown request %q", q.Op)})
	}
}

func reply(conn *net.UnixConn, a wire.Answer) {
	data, err := json.Marshal(a)
	if err == nil {
		_, _ = conn.Write(data) // an asker that is gone needs no answer
	}
}

func (h *helper) listFrozen() []wire.Frozen {
	h.freezer.mu.Lock()
	defer h.freezer.mu.Unlock()
	all := []wire.Frozen{}
	for _, z := range h.freezer.all {
		f := z.Frozen
		f.Members, f.Hold = nil, nil
		for _, m := range z.Members {
			f.Members = append(f.Members, wire.Member{ID: m.ID, Name: m.Name})
		}
		all = append(all, f)
	}
	return all
}

func (h *helper) answerThaw(name string) wire.Answer {
	h.freezer.mu.Lock()
	z := h.freezer.all[name]
	h.freezer.mu.Unlock()
	if z == nil {
		return wire.Answer{Error: gone(name)}
	}
	z.ask()
	<-z.gone
	return wire.Answer{}
}

func gone(name string) string { return name + " is not kept any more" }

// attach gives an agent the asker's socket, and waits until the asker goes.
func (h *helper) attach(conn *net.UnixConn, q wire.Asked, passed []*os.File) {
	if len(passed) != 1 {
		reply(conn, wire.Answer{Error: "no socket came with the request"})
		return
	}
	z, done := h.use(q.Name)
	if z == nil {
		reply(conn, wire.Answer{Error: gone(q.Name)})
		return
	}
	defer done()
	i := 0
	for i < len(z.Members) && z.Members[i].Name != q.Service {
		i++
	}
	if i == len(z.Members) {
		reply(conn, wire.Answer{Error: fmt.Sprintf("%s has no service %q", q.Name, q.Service)})
		return
	}
	frame := wire.Encode(&wire.Connect{})
	if err := unix.Sendmsg(int(z.agents[i].Fd()), frame, unix.UnixRights(int(passed[0].Fd())), nil, 0); err != nil {
		reply(conn, wire.Answer{Error: "its sandbox has ended: " + err.Error()})
		return
	}
	reply(conn, wire.Answer{Exec: &z.Members[i].Exec})
	dropFiles(passed)
	// Until the asker goes, or what it has open does.
	_ = conn.SetReadDeadline(time.Time{})
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = conn.Read(make([]byte, 1))
	}()
	select {
	case <-over:
	case <-z.gone:
		drop(conn)
		<-over
	}
}

// passedFiles are the files that came in a control message.
func passedFiles(oob []byte) (files []*os.File) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files
}

func dropFiles(files []*os.File) {
	for _, f := range files {
		drop(f)
	}
}
