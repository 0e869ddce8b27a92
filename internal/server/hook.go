package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/pipeline"
)

// hook takes a delivery. 202 is said when it is on the disk, and only then; what
// is slipway's own fault is 5xx, so that the forge tries again or shows it.
func (s *Server) hook(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	code, says := s.deliver(r, began)
	if code >= http.StatusInternalServerError {
		known(r.Context()) // it is not the sender who fails
	}
	if code == http.StatusTooManyRequests {
		s.metrics.limited.WithLabelValues("repository").Inc()
		w.Header().Set("Retry-After", fmt.Sprint(math.Ceil(1/s.hooked.rate)))
	}
	s.metrics.hooks.WithLabelValues(fmt.Sprint(code)).Inc()
	s.metrics.hookTime.Observe(time.Since(began).Seconds())
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintln(w, says) // whoever asked may be gone
}

// answerWithin is how long a delivery may wait for the ledger: GitHub hangs up
// after ten seconds, and who hears nothing knows less than who is refused.
const answerWithin = 9 * time.Second

var errBusy = errors.New("the ledger took no delivery for 9 s")

func (s *Server) deliver(r *http.Request, began time.Time) (code int, says string) {
	ctx, cancel := context.WithTimeoutCause(r.Context(), answerWithin, errBusy)
	defer cancel()
	repo, err := s.Ledger.Repo(ctx, r.PathValue("id"))
	if errors.Is(err, ledger.ErrNone) || repo.ID == ledger.Uploads {
		return http.StatusNotFound, "no repository has this hook; `slipway repos add` gives the address"
	}
	if err != nil {
		return s.broken("find the repository of a hook", err)
	}
	size := r.ContentLength
	if size < 0 {
		size = forge.MaxBody
	}
	if size > forge.MaxBody {
		return http.StatusRequestEntityTooLarge, fmt.Sprintf("a webhook has at most %d bytes", forge.MaxBody)
	}
	if err := s.room.Acquire(ctx, size); err != nil {
		return http.StatusServiceUnavailable, "too many webhooks at once; deliver it again"
	}
	defer s.room.Release(size)
	body, err := io.ReadAll(io.LimitReader(r.Body, forge.MaxBody+1))
	if err != nil {
		return http.StatusBadRequest, "the body ended too soon"
	}
	d, err := forge.Read(forge.Kind(repo.Forge), repo.Secret, r.Header, body)
	if code := refused(err); code != 0 {
		s.Log.Warn().Err(err).Str("repo", repo.Name).Stringer("from", s.client(r)).Msg("webhook refused")
		return code, err.Error()
	}
	if err != nil {
		return s.broken("read a webhook", err)
	}
	known(ctx)
	if !s.hooked.take(repo.ID, time.Now()) {
		return http.StatusTooManyRequests, "too many webhooks of this repository; deliver it again later"
	}
	if name := d.Repo.FullName; name != "" && !strings.EqualFold(name, repo.Name) {
		return http.StatusUnprocessableEntity, fmt.Sprintf("this is the hook of %s, not of %s; register that with `slipway repos add`, or say that it has moved: `slipway repos set %s --name %s`", repo.Name, name, repo.Name, name)
	}
	accepted, err := s.Ledger.Accept(ctx, ledger.Delivery{Repo: repo.ID, ID: d.ID, Event: d.Event, At: time.Now()}, s.changes(repo, d))
	if err != nil {
		return s.broken("write a delivery down", err)
	}
	s.Log.Info().Str("repo", repo.Name).Str("delivery", d.ID).Str("event", d.Event).Bool("duplicate", accepted.Duplicate).Strs("runs", accepted.Runs).Strs("again", accepted.Again).Msg("delivery accepted")
	s.traceAccepted("webhook", began, repo.Name, accepted.Runs)
	if len(accepted.Runs)+len(accepted.Again) > 0 {
		nudge(s.poke)
		nudge(s.sayable)
	}
	return http.StatusAccepted, told(d, accepted)
}

// refused is the answer to a webhook that is not good; 0: it is, or the fault is ours.
func refused(err error) int {
	switch {
	case errors.Is(err, forge.ErrUnsigned):
		return http.StatusUnauthorized
	case errors.Is(err, forge.ErrSignature):
		return http.StatusForbidden
	case errors.Is(err, forge.ErrMalformed):
		return http.StatusBadRequest
	}
	return 0
}

// broken logs a fault of our own; the answer says no more than that.
func (s *Server) broken(what string, err error) (int, string) {
	s.Log.Error().Err(err).Msg(what)
	return http.StatusServiceUnavailable, "slipway could not take it; deliver it again"
}

func told(d forge.Delivery, a ledger.Accepted) string {
	switch {
	case d.Ping:
		return "slipway hears you"
	case len(a.Runs) > 0:
		return "runs: " + strings.Join(a.Runs, " ")
	case len(a.Again) > 0:
		return "once more: " + strings.Join(a.Again, " ")
	case d.Ignored != "":
		return "nothing to do: " + d.Ignored
	}
	return "known already"
}

// ofFork says what becomes of a fork's pull request. What its own .ci.yml says of
// forks comes too late, and from the fork.
func ofFork(c *ledger.Change, policy pipeline.Forks) {
	switch policy {
	case pipeline.ForksAllow:
		c.Allowed = "the repository's policy"
	case pipeline.ForksDeny:
		c.State, c.Reason = ledger.Skipped, "the repository's policy makes no run of forks"
	default:
		c.State, c.Reason = ledger.Held, "it comes from another repository: `slipway allow "+c.Run+"` lets this commit run"
	}
}

// changes are the runs that a delivery asks for.
func (s *Server) changes(repo ledger.Repo, d forge.Delivery) []ledger.Change {
	var all []ledger.Change
	for _, c := range d.Changes {
		if !c.Runs() {
			continue
		}
		out := ledger.Change{
			Run: s.NewID(), Kind: c.Event.Kind, Ref: c.Event.Ref, Base: c.Event.Base, Before: strings.Trim(c.Before, "0"), After: c.Event.Commit,
			Source: c.Source, Trusted: c.Event.Trusted, Author: c.Author, State: ledger.Queued,
			Newest: repo.Policy.Newest && c.Event.Kind != pipeline.Tag,
		}
		out.Title, _, _ = strings.Cut(c.Message, "\n")
		if out.Before != "" {
			out.Before = c.Before
		}
		if out.After == "" {
			out.After = c.After
		}
		if c.PullRequest > 0 {
			out.Before = fmt.Sprint("pull request ", c.PullRequest) // two may have one ref and commit
		}
		for _, kind := range repo.Policy.Deny {
			if kind == string(out.Kind) {
				out.State, out.Reason = ledger.Skipped, "the repository's policy makes no run of a "+kind
			}
		}
		if !out.Trusted && out.State == ledger.Queued {
			ofFork(&out, repo.Policy.Forks)
		}
		all = append(all, out)
	}
	return all
}
