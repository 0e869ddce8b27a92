package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/ledger"
	"slipway/internal/upload"
	"slipway/pipeline"
)

// Uploaded is the answer to an upload.
type Uploaded struct {
	Upload digest.Digest `json:"upload"` // of its bytes, what it is called by
	Bytes  int64         `json:"bytes"`
}

// uploadsAtOnce bounds how many are received at a time.
const uploadsAtOnce = 4

// takeUpload keeps the files of a run, as package upload packs them. 201 is said
// when they are on the disk.
func (s *Server) takeUpload(w http.ResponseWriter, r *http.Request) {
	tooLarge := fmt.Sprintf("it has more than the %d MiB that this server takes; keep files out with .dockerignore, or raise --upload-limit of the server", s.Uploads.Limit>>20)
	if n, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64); err == nil && n > s.Uploads.Limit || r.ContentLength > s.Uploads.Limit {
		s.say(w, http.StatusRequestEntityTooLarge, problem{tooLarge}) // before the client has sent it
		return
	}
	select {
	case s.uploading <- struct{}{}:
		defer func() { <-s.uploading }()
	default:
		w.Header().Set("Retry-After", "5")
		s.say(w, http.StatusServiceUnavailable, problem{"too many uploads at once; try again"})
		return
	}
	d, n, err := s.Uploads.Put(&patient{r.Body, http.NewResponseController(w)})
	by := identityOf(r.Context())
	switch {
	case errors.Is(err, upload.ErrTooLarge):
		s.say(w, http.StatusRequestEntityTooLarge, problem{tooLarge})
	case err != nil && r.Context().Err() == nil:
		s.fail(w, err)
	case err == nil:
		s.Log.Info().Str("by", by.actor).Str("upload", d.String()).Int64("bytes", n).Msg("upload taken")
		s.say(w, http.StatusCreated, Uploaded{d, n})
	}
}

// patient gives each piece of a long request a minute, instead of all of it.
type patient struct {
	in io.Reader
	rc *http.ResponseController
}

func (p *patient) Read(b []byte) (int, error) {
	at := time.Now().Add(time.Minute)
	_ = p.rc.SetReadDeadline(at) // a server without deadlines needs none
	_ = p.rc.SetWriteDeadline(at.Add(time.Minute))
	return p.in.Read(b)
}

// Begin asks for a run of an upload.
type Begin struct {
	Upload     digest.Digest  `json:"upload"`
	Event      pipeline.Event `json:"event"` // what the run stands for; without a kind `when` holds nothing back
	Only       []string       `json:"only,omitempty"`
	RerunTests bool           `json:"rerun_tests,omitempty"`
	NoCache    bool           `json:"no_cache,omitempty"`
	// KeepSeconds is how long failed tests stay, from their last use; 0: as the server
	// keeps those of other runs. Who asks for it is an admin.
	KeepSeconds int64 `json:"keep_seconds,omitempty"`
}

// Foretold is what a run would do.
type Foretold struct {
	Forecast json.RawMessage `json:"forecast"` // as `slipway run pipeline --dry-run --json` prints it
	Text     string          `json:"text"`     // and without --json
}

func (s *Server) foretell(w http.ResponseWriter, r *http.Request) {
	var b Begin
	if !s.take(w, r, &b) {
		return
	}
	by := identityOf(r.Context())
	asked, err := s.asked(by, b)
	var out Foretold
	if err == nil {
		defer s.use(r.Context())()
		out, err = s.Foretell(r.Context(), ledger.Run{Record: s.NewID(), Kind: pipeline.Push, Author: by.actor, Asked: asked})
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	s.say(w, http.StatusOK, out)
}

// asked is how a run of an upload is to be carried out. It is nobody's commit:
// whatever it says of itself, nothing of it is signed, recorded or promoted.
func (s *Server) asked(by identity, b Begin) (a ledger.Asked, err error) {
	if b.Event.Kind != "" && !slices.Contains([]pipeline.EventKind{pipeline.Push, pipeline.PullRequest, pipeline.Tag, pipeline.Schedule}, b.Event.Kind) {
		return a, &ledger.Refusal{Why: fmt.Sprintf("no event %q; use push, pull_request, tag or schedule", b.Event.Kind)}
	}
	if b.KeepSeconds != 0 && (b.KeepSeconds < 0 || !by.role.May(ledger.Admin)) {
		return a, &ledger.Refusal{Why: "how long failed tests stay is for an admin to say, and no less than nothing; `slipway serve --keep-failed` says it for all runs"}
	}
	b.Event.Trusted = true // as in a local run: what it may is not said by this
	a = ledger.Asked{Upload: b.Upload, Event: &b.Event, Only: b.Only, RerunTests: b.RerunTests, NoCache: b.NoCache, KeepSeconds: b.KeepSeconds}
	return a, s.Uploads.Use(b.Upload)
}

func (s *Server) begin(ctx context.Context, by identity, b Begin) (ledger.Run, error) {
	asked, err := s.asked(by, b)
	if err != nil {
		return ledger.Run{}, err
	}
	id, began := s.NewID(), time.Now()
	_, err = s.Ledger.Accept(ctx, ledger.Delivery{Repo: ledger.Uploads, ID: id, Event: "upload", At: time.Now()}, []ledger.Change{{
		Run: id, Kind: pipeline.Push, Ref: b.Event.Ref, Before: "upload " + id, After: b.Event.Commit,
		Title: path.Base(b.Event.Repo), Author: by.actor, Allowed: by.actor, State: ledger.Queued, Here: true,
		Asked: asked,
	}})
	if err != nil {
		return ledger.Run{}, err
	}
	s.traceAccepted("upload", began, ledger.Uploads, []string{id})
	nudge(s.poke)
	return s.Ledger.Run(ctx, id)
}

func (s *Server) beginRun(w http.ResponseWriter, r *http.Request) {
	var b Begin
	if !s.take(w, r, &b) {
		return
	}
	by := identityOf(r.Context())
	run, err := s.begin(r.Context(), by, b)
	detail := "of " + b.Upload.String()
	if err != nil {
		detail = err.Error()
	}
	err = errors.Join(err, s.Ledger.Note(r.Context(), ledger.Deed{At: time.Now(), Actor: by.actor, Action: "run", Object: run.ID, Detail: detail}))
	if err != nil {
		s.fail(w, err)
		return
	}
	s.say(w, http.StatusAccepted, run)
}

// uploadStays is how long an upload is there after its last run began, for reruns.
const uploadStays = 24 * time.Hour

// sweepUploads removes uploads whose time is over.
func (s *Server) sweepUploads(ctx context.Context) error {
	needed := map[digest.Digest]bool{}
	for _, state := range []ledger.State{ledger.Queued, ledger.Running} {
		all, err := s.Ledger.Runs(ctx, ledger.Filter{Repo: ledger.Uploads, State: state, Limit: 100_000})
		if err != nil {
			return err
		}
		for _, r := range all {
			needed[r.Asked.Upload] = true
		}
	}
	return s.Uploads.Sweep(time.Now().Add(-uploadStays), needed)
}

// maxBegin bounds what is said of a run: it names the files that changed.
const maxBegin = 4 << 20
