package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"golang.org/x/term"

	"slipway/internal/ledger"
	"slipway/internal/server"
)

// remoteShell does what `slipway shell` is asked on the server that is named, or
// that serves the root. A run that only the root knows is left to it.
func (g *globals) remoteShell(ctx context.Context, f shellFlags, args, command []string) (done bool, err error) {
	c, err := f.client(g)
	if err != nil || c == nil {
		return false, err
	}
	if len(args) == 0 {
		return true, c.listKept(ctx, g)
	}
	name, test, _ := strings.Cut(args[0], "/")
	r, err := c.run(ctx, name)
	if errors.Is(err, errUnknown) && f.server == "" {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	if f.rm {
		q := map[string]string{"test": test}
		if err := c.ask(ctx, http.MethodPost, "/api/v1/runs/"+url.PathEscape(r.ID)+"/thaw", q, &r); err != nil {
			return true, err
		}
		fmt.Println("removed", args[0])
		return true, nil
	}
	return true, c.shell(ctx, r, test, server.ShellRequest{Command: command, User: f.user, Service: f.service})
}

// listKept lists what a server keeps.
func (c *client) listKept(ctx context.Context, g *globals) error {
	var list server.KeptList
	if err := c.ask(ctx, http.MethodGet, "/api/v1/kept", nil, &list); err != nil {
		return err
	}
	if g.json {
		return printJSON(os.Stdout, list.Kept)
	}
	if len(list.Kept) == 0 {
		fmt.Println("no failed test is kept; `slipway serve --keep-failed 1h` keeps them")
		return nil
	}
	return showKept(list.Kept)
}

// showKept prints kept tests, of a server or of a root.
func showKept(list []server.Kept) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TEST\tSTAYS\tSERVICES")
	for _, k := range list {
		stays := short(time.Until(k.Until))
		if k.InUse > 0 {
			stays = "in use"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", path.Join(k.Run, k.Test), stays, strings.Join(k.Services, ", "))
	}
	return t.Flush()
}

// shell joins us to a kept test, by a terminal where we have one.
func (c *client) shell(ctx context.Context, r ledger.Run, test string, q server.ShellRequest) error {
	in := int(os.Stdin.Fd())
	terminal := term.IsTerminal(in) && isTerminal(os.Stdout)
	if terminal {
		if q.Term = os.Getenv("TERM"); q.Term == "" {
			q.Term = "xterm"
		}
		q.Size = terminalSize(in)
	}
	conn, err := c.dial(ctx, "/api/v1/runs/"+url.PathEscape(r.ID)+"/shell?"+url.Values{"test": {test}}.Encode())
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(1 << 20)
	talking := context.WithoutCancel(ctx) // what ends it is the command, or a second Ctrl-C
	if err := wsjson.Write(talking, conn, q); err != nil {
		return fmt.Errorf("talk to the server: %w", err)
	}
	s := &joined{conn: conn, ctx: talking}
	if terminal {
		raw, err := term.MakeRaw(in)
		if err != nil {
			return fmt.Errorf("take the terminal over: %w", err)
		}
		defer func() { _ = term.Restore(in, raw) }() // nothing else could be done about it
		defer s.followSize(in, q.Size)()
	}
	defer context.AfterFunc(ctx, func() {
		if terminal {
			_ = conn.CloseNow() // as when a window is closed
		} else {
			s.say(server.ShellSays{Interrupt: true})
		}
	})()
	go s.send(os.Stdin) // ends with this process: nothing interrupts reading a terminal
	end, err := s.show(os.Stdout, os.Stderr)
	if err != nil {
		return err
	}
	return endOfShell(end)
}

func endOfShell(end server.ShellEnd) error {
	switch {
	case end.Error != "":
		return usagef("the server says: %s", end.Error)
	case end.Refused != "":
		fmt.Fprintln(os.Stderr, "slipway:", end.Refused)
	}
	if end.Code != 0 {
		return exitError(end.Code)
	}
	return nil
}

// dial opens a WebSocket.
func (c *client) dial(ctx context.Context, path string) (*websocket.Conn, error) {
	o := &websocket.DialOptions{HTTPClient: c.http, HTTPHeader: http.Header{}}
	if c.token != "" {
		o.HTTPHeader.Set("Authorization", "Bearer "+c.token)
	}
	conn, resp, err := websocket.Dial(ctx, c.base+path, o)
	if err != nil && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, noOf(resp)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	return conn, nil
}

// joined is our end of a shell on a server.
type joined struct {
	conn *websocket.Conn
	ctx  context.Context //nolint:containedctx // of the connection
}

// say tells the server something; a connection that is gone is told by show.
func (s *joined) say(what server.ShellSays) { _ = wsjson.Write(s.ctx, s.conn, what) }

// send passes our input on.
func (s *joined) send(in io.Reader) {
	buf := make([]byte, 16<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 && s.conn.Write(s.ctx, websocket.MessageBinary, buf[:n]) != nil {
			return
		}
		if err != nil {
			s.say(server.ShellSays{EOF: true})
			return
		}
	}
}

// show passes the output on until the end.
func (s *joined) show(out, errs io.Writer) (end server.ShellEnd, err error) {
	for {
		kind, data, err := s.conn.Read(s.ctx)
		if err != nil {
			return end, fmt.Errorf("the connection to the server was lost, and what ran was ended with it: %w", err)
		}
		switch {
		case kind == websocket.MessageText:
			return end, json.Unmarshal(data, &end)
		case len(data) > 0 && data[0] == server.ShellErr:
			_, err = errs.Write(data[1:])
		case len(data) > 0:
			_, err = out.Write(data[1:])
		}
		if err != nil {
			return end, err
		}
	}
}

// followSize passes every change of our terminal's size on, until it is stopped.
// It looks: not every system tells.
func (s *joined) followSize(in int, known server.Size) (stop func()) {
	done := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
			}
			if now := terminalSize(in); now != known {
				known = now
				s.say(server.ShellSays{Size: &now})
			}
		}
	})
	return func() {
		close(done)
		looking.Wait()
	}
}

func terminalSize(fd int) server.Size {
	cols, rows, err := term.GetSize(fd)
	if err != nil {
		return server.Size{Rows: 24, Cols: 80}
	}
	return server.Size{Rows: rows, Cols: cols}
}
