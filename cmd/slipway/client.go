package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"slipway/internal/ledger"
	"slipway/internal/server"
)

// serverFlags say which server a command asks: the one at an address, else the
// one that serves this root, if one does.
type serverFlags struct{ server, token string }

func (f *serverFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.server, "server", "", "ask the server at this address (default: the one that serves the root, where one does)")
	fs.StringVar(&f.token, "server-token", "", "file of a token for --server (`slipway tokens add` there makes one)")
}

// client asks a server.
type client struct {
	base, token string
	root        string // the root of this machine that it serves; empty: it was named by its address
	http        *http.Client
}

// where names the server to people.
func (c *client) where() string {
	if c.root != "" {
		return "the server of " + c.root
	}
	return c.base
}

// client gives the server to ask; nil: none serves this root.
func (f serverFlags) client(g *globals) (*client, error) {
	if f.server != "" {
		u, err := url.Parse(f.server)
		if err != nil || u.Host == "" {
			return nil, usagef("--server %s: write https://HOST", f.server)
		}
		if f.token == "" {
			return nil, usagef("--server needs --server-token FILE (or SLIPWAY_SERVER_TOKEN)")
		}
		token, err := os.ReadFile(f.token)
		if err != nil {
			return nil, usageError{err}
		}
		return &client{base: strings.TrimRight(f.server, "/"), token: strings.TrimSpace(string(token)), http: http.DefaultClient}, nil
	}
	c, err := net.DialTimeout("unix", socketOf(g.root), time.Second)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // no server serves this root
	}
	_ = c.Close() // only tried
	return &client{base: "http://socket", root: g.root, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socketOf(g.root))
		},
	}}}, nil
}

// need gives the server, or says that there is none.
func (f serverFlags) need(g *globals) (*client, error) {
	c, err := f.client(g)
	if err == nil && c == nil {
		err = usagef("no server serves %s; start `slipway serve`, or name another one with --server", g.root)
	}
	return c, err
}

// errUnknown says that the server has no such thing.
var errUnknown = errors.New("the server does not know it")

// send asks, and gives an answer whose body the caller closes. What is asked with
// is JSON, but for an io.Reader, which is sent as it is.
func (c *client) send(ctx context.Context, method, path string, body any, header http.Header) (*http.Response, error) {
	var in io.Reader
	raw, ok := body.(io.Reader)
	switch {
	case ok:
		in = raw
	case body != nil:
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, in)
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	if in != nil && raw == nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	return nil, noOf(resp)
}

// noOf is what an answer says that is no success.
func noOf(resp *http.Response) error {
	defer resp.Body.Close()
	var said struct {
		Error string `json:"error"`
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what is there will do
	if json.Unmarshal(text, &said) != nil || said.Error == "" {
		said.Error = resp.Status
	}
	if resp.StatusCode == http.StatusNotFound {
		return usageError{fmt.Errorf("%s: %w", said.Error, errUnknown)}
	}
	return usageError{&answered{resp.StatusCode, said.Error}}
}

// answered is a server's no.
type answered struct {
	code int // of HTTP
	text string
}

func (a *answered) Error() string { return "the server says: " + a.text }

// ask decodes the answer.
func (c *client) ask(ctx context.Context, method, path string, body, into any) error {
	resp, err := c.send(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}

// run asks for one run; `last` is the newest.
func (c *client) run(ctx context.Context, id string) (r ledger.Run, err error) {
	if id == "last" {
		var all struct{ Runs []ledger.Run }
		if err := c.ask(ctx, http.MethodGet, "/api/v1/runs?limit=1", nil, &all); err != nil {
			return r, err
		}
		if len(all.Runs) == 0 {
			return r, usageError{fmt.Errorf("no run is there yet: %w", errUnknown)}
		}
		id = all.Runs[0].ID
	}
	return r, c.ask(ctx, http.MethodGet, "/api/v1/runs/"+url.PathEscape(id), nil, &r)
}

// logs prints the log of a run, with follow until its end, and says how it ended.
func (c *client) logs(ctx context.Context, id string, follow bool, out io.Writer) error {
	last, lost := "", false
	for {
		end, err := c.logsFrom(ctx, id, follow, &last, out)
		if err == nil || ctx.Err() != nil || !errors.Is(err, errCutOff) {
			if end == string(ledger.Failed) {
				return exitError(exitFailed)
			}
			return err
		}
		if !lost {
			lost = true
			fmt.Fprintf(os.Stderr, "slipway: %s does not answer any more; run %s is followed on when it does\n", c.where(), id)
		}
		select { // the server starts again: it goes on where it was cut off
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

var errCutOff = errors.New("the connection to the server was cut off")

func (c *client) logsFrom(ctx context.Context, id string, follow bool, last *string, out io.Writer) (end string, err error) {
	header := http.Header{}
	if follow {
		header.Set("Accept", "text/event-stream")
		header.Set("Last-Event-Id", *last)
	}
	resp, err := c.send(ctx, http.MethodGet, "/api/v1/runs/"+url.PathEscape(id)+"/logs", nil, header)
	var said usageError
	if err != nil && follow && !errors.As(err, &said) { // who follows a run knows it from the server
		return "", errCutOff
	}
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		line := in.Text()
		switch {
		case !follow:
			printLine(out, line)
		case strings.HasPrefix(line, "id: "):
			*last = line[len("id: "):]
		case line == "event: end":
			end = "?"
		case end != "" && strings.HasPrefix(line, "data: "):
			var over struct{ State string }
			return over.State, json.Unmarshal([]byte(line[len("data: "):]), &over)
		case strings.HasPrefix(line, "data: "):
			printLine(out, line[len("data: "):])
		}
	}
	if follow {
		return "", errCutOff
	}
	return "", in.Err()
}

func printLine(out io.Writer, data string) {
	var n server.Line
	if json.Unmarshal([]byte(data), &n) != nil {
		return
	}
	fmt.Fprintln(out, n)
}

// socketOf is where commands of this machine reach the server of a root.
func socketOf(root string) string { return filepath.Join(root, "server", "socket") }
