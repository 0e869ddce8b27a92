package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"slipway/internal/ledger"
)

// position is a place in the logs of a run: the attempt, and the line after which to go on.
type position struct {
	attempt int
	seq     int64
}

func (p position) String() string { return fmt.Sprintf("%d-%d", p.attempt, p.seq) }

// parsePosition reads what String gives; an empty text is the beginning.
func parsePosition(s string) (p position, err error) {
	if s == "" {
		return p, nil
	}
	a, q, ok := strings.Cut(s, "-")
	if ok {
		if p.attempt, err = strconv.Atoi(a); err == nil {
			p.seq, err = strconv.ParseInt(q, 10, 64)
		}
	}
	if !ok || err != nil || p.attempt < 0 || p.seq < 0 {
		return p, fmt.Errorf("%q is no place in a log; give ATTEMPT-LINE", s)
	}
	return p, nil
}

// logs gives the lines of a run, of all its attempts in turn: as lines of JSON
// those that are there, to a browser as text, and to who asks for text/event-stream
// all until its end.
// The id of an event is its place: with it as Last-Event-ID a follower that was
// cut off goes on where it was, without a gap.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	run, err := s.Ledger.Run(r.Context(), r.PathValue("id"))
	if err != nil {
		s.fail(w, err)
		return
	}
	from, err := parsePosition(r.Header.Get("Last-Event-ID"))
	if err == nil && r.URL.Query().Has("after") {
		from, err = parsePosition(r.URL.Query().Get("after"))
	}
	if err != nil {
		s.say(w, http.StatusBadRequest, problem{err.Error()})
		return
	}
	out := &lineWriter{w: bufio.NewWriter(w), rc: http.NewResponseController(w), hear: func() <-chan struct{} { return s.bells.hear(run.ID) }}
	out.news = out.hear() // before the first look
	defer s.bells.forget(run.ID)
	accept := r.Header.Get("Accept")
	follow := strings.Contains(accept, "text/event-stream")
	switch {
	case follow:
		out.events = true
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no")
	case strings.Contains(accept, "text/html"): // a browser
		out.text = true
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	default:
		w.Header().Set("Content-Type", "application/x-ndjson")
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	if err := s.pour(r.Context(), run.ID, from, follow, out); err != nil && r.Context().Err() == nil {
		s.Log.Warn().Err(err).Str("run", run.ID).Msg("a log could not be sent to its end")
	}
}

// pour writes the lines of all attempts from a place on.
func (s *Server) pour(ctx context.Context, id string, from position, follow bool, out *lineWriter) error {
	for {
		attempts, err := s.Ledger.Attempts(ctx, id)
		if err != nil {
			return err
		}
		for _, a := range attempts {
			if a.N < from.attempt {
				continue
			}
			if a.N > from.attempt {
				from = position{attempt: a.N}
			}
			if from, err = s.pourAttempt(ctx, a, from, follow, out); err != nil {
				return err
			}
		}
		run, err := s.Ledger.Run(ctx, id)
		if err != nil {
			return err
		}
		if !follow || run.State.Over() && run.Attempts == from.attempt || run.State.Over() && run.Attempts == 0 {
			return out.end(run)
		}
		if err := out.pause(ctx); err != nil {
			return err
		}
	}
}

// look is how often a log is looked at for more, where no bell rings: another
// server writes it.
const look = 100 * time.Millisecond

func (s *Server) pourAttempt(ctx context.Context, a ledger.Attempt, from position, follow bool, out *lineWriter) (position, error) {
	f, err := s.openLog(ctx, a, follow, out)
	if err != nil {
		return from, err
	}
	if f == nil {
		instead := Line{Seq: 1, At: a.Started}
		switch {
		case from.seq > 0:
			return from, nil
		case !a.Here:
			instead.Text = "[slipway: this attempt is another server's, which has its log: " + a.Owner + "]"
		case a.Removed != nil:
			instead.At, instead.Text = *a.Removed, "[slipway: the log was removed by retention]"
		default:
			return from, nil
		}
		from.seq = 1
		return from, out.line(from, instead)
	}
	defer f.Close()
	in := newLogReader(f)
	over := a.Ended != nil
	write := func(n Line) error {
		if n.Seq <= from.seq {
			return nil
		}
		from.seq = n.Seq
		return out.line(from, n)
	}
	for {
		n, err := in.line()
		switch {
		case err == nil:
			if err := write(n); err != nil {
				return from, err
			}
			continue
		case !errors.Is(err, io.EOF):
			return from, err
		case over:
			if n, torn := in.end(); torn {
				if err := write(n); err != nil {
					return from, err
				}
			}
			return from, out.flush()
		case !follow:
			return from, out.flush()
		}
		if err := out.pause(ctx); err != nil {
			return from, err
		}
		over, err = s.attemptOver(ctx, a) // what is in the file after this is all
		if err != nil {
			return from, err
		}
	}
}

// openLog opens the log of an attempt, waiting for it while it may come; nil: there is none.
func (s *Server) openLog(ctx context.Context, a ledger.Attempt, follow bool, out *lineWriter) (*os.File, error) {
	for {
		f, err := os.Open(s.LogFile(a.Record))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		if !a.Here {
			return nil, nil //nolint:nilnil // it never comes
		}
		over, err := s.attemptOver(ctx, a)
		if err != nil || over || !follow {
			return nil, err
		}
		if err := out.pause(ctx); err != nil {
			return nil, err
		}
	}
}

func (s *Server) attemptOver(ctx context.Context, a ledger.Attempt) (bool, error) {
	all, err := s.Ledger.Attempts(ctx, a.Run)
	for _, now := range all {
		if now.N == a.N {
			return now.Ended != nil, err
		}
	}
	return true, err
}

// lineWriter writes lines of JSON, bare or as events.
type lineWriter struct {
	w      *bufio.Writer
	rc     *http.ResponseController
	events bool
	text   bool
	quiet  time.Time
	hear   func() <-chan struct{}
	news   <-chan struct{} // closed once there is more than the last look has seen
}

func (o *lineWriter) line(at position, n Line) error {
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	o.quiet = time.Now()
	switch {
	case o.events:
		_, err = fmt.Fprintf(o.w, "id: %s\ndata: %s\n\n", at, data)
	case o.text:
		_, err = fmt.Fprintln(o.w, n)
	default:
		_, err = o.w.Write(append(data, '\n'))
	}
	return err
}

// end tells a follower that the run is over.
func (o *lineWriter) end(run ledger.Run) error {
	if o.events {
		data, err := json.Marshal(map[string]string{"state": string(run.State), "reason": run.Reason})
		if err != nil {
			return err
		}
		fmt.Fprintf(o.w, "event: end\ndata: %s\n\n", data) // flush tells of an error
	}
	return o.flush()
}

func (o *lineWriter) flush() error {
	if err := o.w.Flush(); err != nil {
		return err
	}
	_ = o.rc.SetWriteDeadline(time.Now().Add(time.Minute)) // a server without deadlines needs none
	return o.rc.Flush()
}

// pause waits for news, or a little, and says something now and then, so that a
// connection whose other end has gone is noticed.
func (o *lineWriter) pause(ctx context.Context) error {
	if o.events && time.Since(o.quiet) > quiet {
		o.quiet = time.Now()
		if _, err := o.w.WriteString(": still here\n\n"); err != nil {
			return err
		}
	}
	if err := o.flush(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-o.news:
	case <-time.After(look):
	}
	o.news = o.hear()
	return nil
}
