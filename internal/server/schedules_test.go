package server_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/pipeline"
)

// A schedule that was due while no server ran gives one run, of what its branch is
// at by then. A repository that does not answer is asked again at the next start.
func TestScheduleIsKept(t *testing.T) {
	w := newWorld(t)
	s, err := w.ledger.AddSchedule(t.Context(), ledger.Schedule{Repo: "hook", Of: "example/web", Name: "nightly", Cron: "* * * * *", Zone: "UTC", Branch: "main"})
	must(t, err)
	_, err = w.ledger.Keep(t.Context(), s, "none", "", time.Now().Add(-24*time.Hour))
	must(t, err)
	var asked atomic.Int64
	passes := func(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
		return ledger.End{State: ledger.Passed}, nil
	}
	w.serve(t, server.Options{Look: func(context.Context, ledger.Repo) (map[string]string, error) {
		asked.Add(1)
		return nil, errors.New("it is away")
	}}, passes)
	for deadline := time.Now().Add(30 * time.Second); asked.Load() == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody asks where the branch is")
		}
	}
	w.stop()
	if all, err := w.ledger.Runs(t.Context(), ledger.Filter{}); err != nil || len(all) != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	w.serve(t, server.Options{Look: func(context.Context, ledger.Repo) (map[string]string, error) {
		return map[string]string{"refs/heads/main": hash(7), "refs/heads/other": hash(8)}, nil
	}}, passes)
	r := w.until(t, "over", over)
	w.stop()
	if r.Kind != pipeline.Schedule || r.Commit != hash(7) || r.State != ledger.Passed || r.Base != "nightly" {
		t.Errorf("%+v", r)
	}
	all, err := w.ledger.Runs(t.Context(), ledger.Filter{})
	must(t, err)
	if len(all) > 2 { // a minute may have passed
		t.Errorf("%d runs of what was missed", len(all))
	}
}
