package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"slipway/internal/ledger"
)

// Kept is a failed test whose sandbox stays, with its services.
type Kept struct {
	Run      string    `json:"run"`
	Test     string    `json:"test"` // IMAGE/TEST
	Services []string  `json:"services,omitempty"`
	Until    time.Time `json:"until"`
	InUse    int       `json:"in_use"`            // terminals and commands open in it
	Secrets  bool      `json:"secrets,omitempty"` // some are in it
	Record   string    `json:"-"`                 // of the attempt that failed
}

// KeptList are the failed tests that stay.
type KeptList struct {
	Kept []Kept `json:"kept"`
}

// ShellRequest begins what is said over the connection of a shell: as JSON text.
type ShellRequest struct {
	Command []string `json:"command,omitempty"` // none: a shell
	User    string   `json:"user,omitempty"`    // of the image; empty: the test's
	Service string   `json:"service,omitempty"` // whose sandbox; empty: the test's
	Term    string   `json:"term,omitempty"`    // what the person's terminal is, as $TERM says; empty: pipes instead of a terminal
	Size    Size     `json:"size,omitzero"`
}

// Size of a terminal, in characters.
type Size struct {
	Rows int `json:"rows"`
	Cols int `json:"cols"`
}

// ShellSays is what the client says meanwhile, as JSON text. Its input is binary.
type ShellSays struct {
	Size      *Size `json:"size,omitempty"` // of its terminal, from now on
	Interrupt bool  `json:"interrupt,omitempty"`
	EOF       bool  `json:"eof,omitempty"` // no more input comes
}

// ShellEnd is the last that the server says, as JSON text. Output is binary: its
// first byte is 1, or 2 for errors.
type ShellEnd struct {
	Code    int    `json:"code"`              // exit code of the command
	Refused string `json:"refused,omitempty"` // why the command could not be started
	Error   string `json:"error,omitempty"`   // slipway's own, or the sandbox is gone
}

// Console is the person's end of a shell.
type Console struct {
	In        io.Reader
	Out, Err  io.Writer
	Sizes     <-chan Size     // of its terminal, as it changes
	Interrupt <-chan struct{} // closed when the command is to get SIGINT
}

// Bytes that binary output begins with.
const (
	ShellOut byte = 1
	ShellErr byte = 2
)

// maxPiece bounds a message of a client.
const maxPiece = 64 << 10

// listKept lists what is kept. Runs are told by their IDs, as everywhere.
func (s *Server) listKept(w http.ResponseWriter, r *http.Request) {
	all, err := s.kept(r.Context(), "")
	if err != nil {
		s.fail(w, err)
		return
	}
	s.say(w, http.StatusOK, KeptList{orEmpty(all)})
}

// kept lists what is kept of a run, or of all.
func (s *Server) kept(ctx context.Context, run string) (all []Kept, err error) {
	found, err := s.Kept(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range found {
		if k.Run, err = s.Ledger.RunOf(ctx, k.Record); errors.Is(err, ledger.ErrNone) {
			continue // of a run of this root that no server made
		}
		if err != nil {
			return nil, err
		}
		if run == "" || k.Run == run {
			all = append(all, k)
		}
	}
	return all, nil
}

// chosen finds the one test that a request names; without a name the only one.
func (s *Server) chosen(ctx context.Context, id, test string) (Kept, error) {
	run, err := s.Ledger.Run(ctx, id)
	if err != nil {
		return Kept{}, err
	}
	all, err := s.kept(ctx, run.ID)
	if err != nil {
		return Kept{}, err
	}
	var names []string
	for i := len(all) - 1; i >= 0; i-- { // of several attempts the last
		if all[i].Test == test {
			return all[i], nil
		}
		names = append(names, all[i].Test)
	}
	switch {
	case len(all) == 0:
		return Kept{}, &ledger.Refusal{Why: fmt.Sprintf("no failed test of run %s is kept, or not any more; `slipway serve --keep-failed` says for how long they are", run.ID)}
	case test == "" && len(all) == 1:
		return all[0], nil
	}
	return Kept{}, &ledger.Refusal{Why: fmt.Sprintf("of run %s these are kept: %s; name one: RUN/TEST", run.ID, strings.Join(names, ", "))}
}

// thawed is the body of thaw.
type thawed struct {
	Test string `json:"test,omitempty"` // IMAGE/TEST; empty: all of the run
}

func (s *Server) thaw(ctx context.Context, r ledger.Run, _ identity, q thawed) error {
	all, err := s.kept(ctx, r.ID)
	for _, k := range all {
		if q.Test == "" || q.Test == k.Test {
			err = errors.Join(err, s.Thaw(ctx, k))
		}
	}
	return err
}

// shell joins a person to a kept test: by a WebSocket (RFC 6455), which proxies
// let through. A sandbox with secrets takes a sysadmin: who is in it can read them.
func (s *Server) shell(w http.ResponseWriter, r *http.Request) {
	by := identityOf(r.Context())
	k, err := s.chosen(r.Context(), r.PathValue("id"), r.URL.Query().Get("test"))
	if err != nil {
		s.fail(w, err)
		return
	}
	if k.Secrets && !by.role.May(ledger.Sysadmin) {
		s.note(r.Context(), by, r)
		s.say(w, http.StatusForbidden, problem{k.Test + " has secrets in it, and " + by.actor + " is a " + string(by.role) + "; this takes a " + string(ledger.Sysadmin)})
		return
	}
	rc := http.NewResponseController(w)
	_ = errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{})) // a server without deadlines needs none
	c, err := websocket.Accept(w, r, nil)                                              // it refuses other sites, and has answered where it fails
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(maxPiece)
	if err := s.converse(r.Context(), c, k, by); err != nil {
		s.Log.Warn().Err(err).Str("run", k.Run).Str("test", k.Test).Msg("a shell was cut off")
	}
}

func (s *Server) converse(ctx context.Context, c *websocket.Conn, k Kept, by identity) error {
	var q ShellRequest
	if err := wsjson.Read(ctx, c, &q); err != nil {
		return err
	}
	err := s.Ledger.Note(ctx, ledger.Deed{At: time.Now(), Actor: by.actor, Action: "shell", Object: k.Run + "/" + k.Test, Detail: strings.Join(q.Command, " ")})
	if err != nil {
		return err
	}
	ctx, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	interrupt := make(chan struct{})
	in, typed := io.Pipe()
	sizes := make(chan Size, 1)
	var listening sync.WaitGroup
	listening.Go(func() { hangUp(listen(ctx, c, typed, sizes, sync.OnceFunc(func() { close(interrupt) }))) })
	beating := time.NewTicker(quiet)
	listening.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-beating.C:
				_ = c.Ping(ctx) // a connection that is gone ends listen
			}
		}
	})
	var out sync.Mutex
	end, err := s.Shell(ctx, k, q, Console{in, &shellWriter{ctx, c, &out, ShellOut}, &shellWriter{ctx, c, &out, ShellErr}, sizes, interrupt})
	if err != nil {
		_, end.Error = s.explain(err)
		if ctx.Err() != nil {
			end.Error = "the connection was lost"
		}
	}
	err = wsjson.Write(ctx, c, end)
	_ = c.Close(websocket.StatusNormalClosure, "") // the client may be gone
	hangUp(nil)
	beating.Stop()
	_ = in.Close() // lets go of whoever types
	listening.Wait()
	return err
}

// listen passes on what the client says until it is gone, and says why it is.
func listen(ctx context.Context, c *websocket.Conn, typed *io.PipeWriter, sizes chan Size, interrupt func()) error {
	defer typed.Close()
	for {
		kind, data, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if kind == websocket.MessageBinary {
			_, _ = typed.Write(data) // a command need not read its input to the end
			continue
		}
		var says ShellSays
		if err := json.Unmarshal(data, &says); err != nil {
			return err
		}
		if says.Size != nil {
			select { // the newest counts
			case <-sizes:
			default:
			}
			sizes <- *says.Size
		}
		if says.EOF {
			_ = typed.Close() // never fails
		}
		if says.Interrupt {
			interrupt()
		}
	}
}

// shellWriter writes output as messages.
type shellWriter struct {
	ctx  context.Context //nolint:containedctx // of the connection
	c    *websocket.Conn
	mu   *sync.Mutex
	kind byte
}

func (o *shellWriter) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.c.Write(o.ctx, websocket.MessageBinary, append([]byte{o.kind}, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}
