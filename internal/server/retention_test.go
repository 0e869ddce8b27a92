package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/internal/server"
)

// Space is freed while nothing runs: it waits for the run that is on, and the next
// run waits for it.
func TestSpaceIsFreedWhileNothingRuns(t *testing.T) {
	w := newWorld(t)
	var running atomic.Int64
	goOn, collecting, collected := make(chan struct{}), make(chan struct{}), make(chan struct{})
	w.serve(t, server.Options{
		Runs:   2,
		Retain: server.Retention{Cache: 1, Runs: 7, RunsFor: 8, ImagesFor: 9},
		Collect: func(_ context.Context, how server.Retention) (server.Collected, error) {
			if n := running.Load(); n != 0 {
				t.Errorf("%d runs are on", n)
			}
			if how != (server.Retention{Cache: 1, Runs: 3, RunsFor: 8, ImagesFor: 9}) {
				t.Errorf("%+v", how)
			}
			close(collecting)
			<-collected
			return server.Collected{Runs: 2}, nil
		},
	}, func(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
		running.Add(1)
		defer running.Add(-1)
		select {
		case <-collecting: // the second one
		default:
			<-goOn
		}
		return ledger.End{State: ledger.Passed}, nil
	})
	w.accepted(t, 1)
	first := w.until(t, "running", func(r ledger.Run) bool { return r.State == ledger.Running })
	answer := make(chan string, 1)
	token := w.token(t, ledger.Admin)
	go func() {
		_, said := w.ask(t, http.MethodPost, "/api/v1/gc", token, `{"keep_runs": 3}`)
		answer <- said
	}()
	close(goOn) // before or after it is asked: it waits for the end
	<-collecting
	if r, err := w.ledger.Run(t.Context(), first.ID); err != nil || running.Load() != 0 {
		t.Errorf("%s, %v", r.State, err)
	}
	w.accepted(t, 2)
	w.until(t, "taken", func(r ledger.Run) bool { return r.ID != first.ID && r.State == ledger.Running })
	if running.Load() != 0 {
		t.Error("a run begins while space is freed")
	}
	close(collected)
	if said := <-answer; !strings.Contains(said, `"runs_removed":2`) {
		t.Errorf("%s", said)
	}
	w.until(t, "over", func(r ledger.Run) bool { return r.ID != first.ID && over(r) })
	if code, said := w.ask(t, http.MethodPost, "/api/v1/gc", token, `{"keep_ledger_seconds": 86400}`); code != http.StatusBadRequest || !strings.Contains(said, "2160 hours at least") {
		t.Errorf("%d %s", code, said)
	}
	if code, said := w.ask(t, http.MethodPost, "/api/v1/gc", w.token(t, ledger.Sysadmin), `{}`); code != http.StatusForbidden {
		t.Errorf("%d %s", code, said)
	}
}

// Where the disk is nearly full no build cache is kept, and it is done at once.
func TestShortDisk(t *testing.T) {
	w := newWorld(t)
	how := make(chan server.Retention, 1)
	w.serve(t, server.Options{
		Retain: server.Retention{Cache: 1, Runs: 7},
		Short:  func() (bool, error) { return true, nil },
		Collect: func(_ context.Context, h server.Retention) (server.Collected, error) {
			how <- h
			return server.Collected{}, nil
		},
	}, nil)
	if h := <-how; h != (server.Retention{Runs: 7}) {
		t.Errorf("%+v", h)
	}
}

// A run whose log was removed says so; the run itself is there.
func TestRemovedLog(t *testing.T) {
	w := newWorld(t)
	w.serve(t, server.Options{}, func(_ context.Context, _ ledger.Run, l *server.Log) (ledger.End, error) {
		l.Say("web/unit", "hello")
		return ledger.End{State: ledger.Passed}, nil
	})
	w.accepted(t, 1)
	r := w.until(t, "over", over)
	must(t, w.ledger.Removed(t.Context(), []string{r.Record}, time.Now()))
	must(t, os.Remove(filepath.Join(w.dir, r.Record)))
	token := w.token(t, ledger.Viewer)
	for _, accept := range []string{"application/x-ndjson", "text/event-stream"} {
		_, body := w.request(t, http.MethodGet, "/api/v1/runs/"+r.ID+"/logs", token, "Accept", accept)
		if all := lines(t, body); len(all) != 1 || all[0].Text != "[slipway: the log was removed by retention]" {
			t.Errorf("%s: %s", accept, body)
		}
	}
	var shown struct{ Tries []ledger.Attempt }
	_, body := w.request(t, http.MethodGet, "/api/v1/runs/"+r.ID, token)
	must(t, json.Unmarshal([]byte(body), &shown))
	if len(shown.Tries) != 1 || shown.Tries[0].Removed == nil {
		t.Errorf("%s", body)
	}
}

// Of several servers on one ledger each has the logs of its own attempts; the others say whose.
func TestLogOfAnotherServer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger.db")
	w := newWorldOn(t, file)
	there, err := ledger.Open(t.Context(), ledger.Options{Database: file, Owner: "there:/root"})
	must(t, err)
	defer func() { must(t, there.Close()) }()
	_, err = w.ledger.Accept(t.Context(), ledger.Delivery{Repo: "hook", ID: "d1", Event: "push", At: time.Now()}, []ledger.Change{{Run: "far", Kind: "push", Ref: "refs/heads/main", After: hash(1), State: ledger.Queued}})
	must(t, err)
	r, err := there.Take(t.Context(), "of the other")
	must(t, err)
	must(t, there.Finish(t.Context(), r, ledger.End{State: ledger.Passed}))
	w.serve(t, server.Options{}, passes)
	token := w.token(t, ledger.Viewer)
	for _, accept := range []string{"application/x-ndjson", "text/event-stream"} {
		_, body := w.request(t, http.MethodGet, "/api/v1/runs/far/logs", token, "Accept", accept)
		if all := lines(t, body); len(all) != 1 || all[0].Text != "[slipway: this attempt is another server's, which has its log: there:/root]" {
			t.Errorf("%s: %s", accept, body)
		}
	}
}

// A server that is busy is left so for an hour; then it makes itself free.
func TestPatience(t *testing.T) {
	collected := make(chan struct{}, 1)
	s := server.New(server.Options{
		CollectEvery: time.Hour, Short: func() (bool, error) { return false, nil },
		Collect: func(context.Context, server.Retention) (server.Collected, error) {
			collected <- struct{}{}
			return server.Collected{}, nil
		},
	})
	release := s.Use(t.Context())
	for _, due := range []time.Time{time.Now().Add(time.Minute), time.Now().Add(-time.Minute)} {
		if next, err := s.LookForSpace(t.Context(), due); err != nil || len(collected) != 0 || !next.Equal(due) {
			t.Errorf("due at %v: %d, %v, %v", due, len(collected), next, err)
		}
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.LookForSpace(t.Context(), time.Now().Add(-2*time.Hour))
		ended <- err
	}()
	select {
	case <-collected:
		t.Error("it is done while the root is in use")
	case err := <-ended:
		t.Errorf("nobody waits: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	release()
	<-collected
	must(t, <-ended)
	if next, err := s.LookForSpace(t.Context(), time.Now().Add(-time.Minute)); err != nil || len(collected) != 1 || time.Until(next) < 50*time.Minute {
		t.Errorf("a server that is idle: %d, %v, %v", len(collected), next, err)
	}
}
