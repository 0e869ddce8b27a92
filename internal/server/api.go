package server

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"time"

	"slipway/internal/ledger"
	"slipway/internal/upload"
	"slipway/promote"
)

// health is how the server is.
type health struct {
	State string `json:"state"`
}

func (s *Server) alive(w http.ResponseWriter, _ *http.Request) {
	s.say(w, http.StatusOK, health{"alive"})
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	if err := s.Ledger.Ping(ctx); err != nil {
		s.Log.Error().Err(err).Msg("not ready")
		s.say(w, http.StatusServiceUnavailable, problem{"the ledger cannot be written"})
		return
	}
	s.say(w, http.StatusOK, health{"ready"})
}

type runList struct {
	Runs []ledger.Run `json:"runs"`
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
	s.say(w, http.StatusOK, runList{orEmpty(all)})
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
	s.say(w, http.StatusOK, shown{run, orEmpty(attempts)})
}

// repoShown is a repository without its hook's ID, which is half of what it takes to use that.
type repoShown struct {
	Name    string        `json:"name"`
	URL     string        `json:"url"`
	Forge   string        `json:"forge"`
	Policy  ledger.Policy `json:"policy"`
	Created time.Time     `json:"created"`
}

type repoList struct {
	Repos []repoShown `json:"repos"`
}

func (s *Server) repos(w http.ResponseWriter, r *http.Request) {
	all, err := s.Ledger.Repos(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	out := repoList{[]repoShown{}}
	for _, r := range all {
		out.Repos = append(out.Repos, repoShown{r.Name, r.URL, r.Forge, r.Policy, r.Created})
	}
	s.say(w, http.StatusOK, out)
}

type deedList struct {
	Deeds []ledger.Deed `json:"deeds"`
}

func (s *Server) audit(w http.ResponseWriter, r *http.Request) {
	all, err := s.Ledger.Deeds(r.Context(), 1000)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.say(w, http.StatusOK, deedList{orEmpty(all)})
}

// orEmpty is a list that JSON does not write as null.
func orEmpty[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

// empty is the body of a POST that has nothing to say.
type empty struct{}

// rerun is the body of rerun: what the attempt before spares this one.
type rerun struct {
	FromFailed bool `json:"from_failed,omitempty"` // what passed on the same image
	SamePlan   bool `json:"same_plan,omitempty"`   // building: it takes the same images
}

// looked is the body of allow: the commit that was looked at.
type looked struct {
	Commit string `json:"commit"`
}

// take reads the body of a POST into to; where it is none, it answers so.
func (s *Server) take(w http.ResponseWriter, r *http.Request, to any) bool {
	// A page of another site can make a browser send forms, but not this type.
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
		s.say(w, http.StatusUnsupportedMediaType, problem{"send Content-Type: application/json, with {} where there is nothing to say"})
		return false
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		s.say(w, http.StatusBadRequest, problem{"the body is not what this takes: " + err.Error()})
		return false
	}
	return true
}

// act does something with a run, and writes down who did. T is the body's type.
func act[T any](s *Server, what string, do func(context.Context, ledger.Run, identity, T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q T
		if !s.take(w, r, &q) {
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
	if errors.Is(err, context.Canceled) {
		return // whoever asked is gone
	}
	code, text := s.explain(err)
	s.say(w, code, problem{text})
}

// explain says what an error is to whoever asked.
func (s *Server) explain(err error) (code int, text string) {
	var (
		refused *ledger.Refusal
		none    *promote.NoEnvironment
		wrong   *promote.Mistake
		lost    *promote.Lost
		shut    *promote.Shut
		other   *changed
	)
	switch {
	case errors.Is(err, ledger.ErrNone):
		return http.StatusNotFound, "no such run; `slipway runs` lists them"
	case errors.As(err, &none):
		return http.StatusNotFound, err.Error()
	case errors.Is(err, upload.ErrNone):
		return http.StatusGone, err.Error()
	case errors.As(err, &refused), errors.As(err, &lost), errors.As(err, &shut), errors.As(err, &other):
		return http.StatusConflict, err.Error()
	case errors.As(err, &wrong):
		return http.StatusUnprocessableEntity, err.Error()
	}
	s.Log.Error().Err(err).Msg("a request failed")
	return http.StatusInternalServerError, "slipway failed; its log says how"
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
