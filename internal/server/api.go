package server

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"slipway/internal/ledger"
)

// Handler answers on the network. Webhooks are let in by their signature, health
// by anyone, and all else by a token.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hooks/{id}", s.hook)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		s.say(w, http.StatusOK, map[string]string{"state": "alive"})
	})
	mux.HandleFunc("GET /readyz", s.ready)
	s.guardedRoutes(mux, s.byToken)
	return mux
}

// LocalHandler answers on the root's socket: who may open that has the root.
func (s *Server) LocalHandler(actor func(context.Context) string) http.Handler {
	mux := http.NewServeMux()
	s.guardedRoutes(mux, func(r *http.Request) (identity, error) {
		return identity{actor(r.Context()), ledger.Admin}, nil
	})
	return mux
}

func (s *Server) guardedRoutes(mux *http.ServeMux, who authenticator) {
	route := func(pattern string, role ledger.Role, do func(http.ResponseWriter, *http.Request)) {
		mux.HandleFunc(pattern, s.guard(who, role, do))
	}
	metrics := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{})
	route("GET /metrics", ledger.Viewer, metrics.ServeHTTP)
	route("GET /{$}", ledger.Viewer, s.page)
	route("GET /runs/{id}", ledger.Viewer, s.runPage)
	route("GET /api/v1/runs", ledger.Viewer, s.list)
	route("GET /api/v1/runs/{id}", ledger.Viewer, s.show)
	route("GET /api/v1/runs/{id}/logs", ledger.Viewer, s.logs)
	route("GET /api/v1/repos", ledger.Viewer, s.repos)
	route("GET /api/v1/audit", ledger.Admin, s.audit)
	route("POST /api/v1/runs/{id}/cancel", ledger.Developer, s.act("cancel", func(ctx context.Context, r ledger.Run, by identity, _ request) error {
		return s.Ledger.Cancel(ctx, r.ID, "canceled by "+by.actor)
	}))
	route("POST /api/v1/runs/{id}/rerun", ledger.Developer, s.act("rerun", func(ctx context.Context, r ledger.Run, _ identity, _ request) error {
		return s.Ledger.Rerun(ctx, r.ID)
	}))
	route("POST /api/v1/runs/{id}/allow", ledger.Sysadmin, s.act("allow", func(ctx context.Context, r ledger.Run, by identity, q request) error {
		return s.Ledger.Allow(ctx, r.ID, q.Commit, by.actor)
	}))
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	if err := s.Ledger.Ping(ctx); err != nil {
		s.Log.Error().Err(err).Msg("not ready")
		s.say(w, http.StatusServiceUnavailable, problem{"the ledger cannot be written"})
		return
	}
	s.say(w, http.StatusOK, map[string]string{"state": "ready"})
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f := ledger.Filter{Repo: q.Get("repo"), State: ledger.State(q.Get("state")), Ref: q.Get("ref"), Limit: 50}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			s.say(w, http.StatusBadRequest, problem{"limit is a number from 1 to 1000"})
			return
		}
		f.Limit = n
	}
	if id := q.Get("before"); id != "" {
		run, err := s.Ledger.Run(r.Context(), id)
		if err != nil {
			s.fail(w, err)
			return
		}
		f.Older = run.Seq
	}
	all, err := s.Ledger.Runs(r.Context(), f)
	if err != nil {
		s.fail(w, err)
		return
	}
	if all == nil {
		all = []ledger.Run{}
	}
	s.say(w, http.StatusOK, map[string]any{"runs": all})
}

// shown is a run with its attempts.
type shown struct {
	ledger.Run
	Tries []ledger.Attempt `json:"tries"`
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	run, err := s.Ledger.Run(r.Context(), r.PathValue("id"))
	var attempts []ledger.Attempt
	if err == nil {
		attempts, err = s.Ledger.Attempts(r.Context(), run.ID)
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	s.say(w, http.StatusOK, shown{run, attempts})
}

func (s *Server) repos(w http.ResponseWriter, r *http.Request) {
	all, err := s.Ledger.Repos(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	out := []map[string]any{} // without the hook's ID, which is half of what it takes to use it
	for _, repo := range all {
		out = append(out, map[string]any{"name": repo.Name, "url": repo.URL, "forge": repo.Forge, "policy": repo.Policy, "created": repo.Created})
	}
	s.say(w, http.StatusOK, map[string]any{"repos": out})
}

func (s *Server) audit(w http.ResponseWriter, r *http.Request) {
	all, err := s.Ledger.Deeds(r.Context(), 1000)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.say(w, http.StatusOK, map[string]any{"deeds": all})
}

// request is the body of a POST.
type request struct {
	Commit string `json:"commit"` // of allow: what was looked at
}

// act does something with a run, and writes down who did.
func (s *Server) act(what string, do func(context.Context, ledger.Run, identity, request) error) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		// A page of another site can make a browser send forms, but not this type.
		if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
			s.say(w, http.StatusUnsupportedMediaType, problem{"send Content-Type: application/json, with {} where there is nothing to say"})
			return
		}
		var q request
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil {
			s.say(w, http.StatusBadRequest, problem{"the body is not what this takes: " + err.Error()})
			return
		}
		by := identityOf(r.Context())
		run, err := s.Ledger.Run(r.Context(), r.PathValue("id"))
		if err == nil {
			err = do(r.Context(), run, by, q)
		}
		detail := "done"
		if err != nil {
			detail = err.Error()
		}
		if e := s.Ledger.Note(r.Context(), ledger.Deed{At: time.Now(), Actor: by.actor, Action: what, Object: run.ID, Detail: detail}); e != nil {
			err = errors.Join(err, e)
		}
		if err != nil {
			s.fail(w, err)
			return
		}
		nudge(s.poke)
		nudge(s.sayable)
		if run, err = s.Ledger.Run(r.Context(), run.ID); err != nil {
			s.fail(w, err)
			return
		}
		s.say(w, http.StatusOK, run)
	}
}

// problem is the body of an answer that is no success.
type problem struct {
	Error string `json:"error"`
}

// fail answers with what went wrong. The causes of slipway's own faults are for its log.
func (s *Server) fail(w http.ResponseWriter, err error) {
	var refused *ledger.Refusal
	switch {
	case errors.Is(err, ledger.ErrNone):
		s.say(w, http.StatusNotFound, problem{"no such run; `slipway runs` lists them"})
	case errors.As(err, &refused):
		s.say(w, http.StatusConflict, problem{err.Error()})
	case errors.Is(err, context.Canceled):
	default:
		s.Log.Error().Err(err).Msg("a request failed")
		s.say(w, http.StatusInternalServerError, problem{"slipway failed; its log says how"})
	}
}

func (s *Server) say(w http.ResponseWriter, code int, what any) {
	data, err := json.Marshal(what)
	if err != nil {
		s.Log.Error().Err(err).Msg("an answer cannot be encoded")
		code, data = http.StatusInternalServerError, []byte(`{"error":"slipway failed; its log says how"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n')) // whoever asked may be gone
}
