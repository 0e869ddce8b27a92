package server_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/internal/need"
	"slipway/internal/server"
)

func passes(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
	return ledger.End{State: ledger.Passed}, nil
}

// passed waits until so many runs are there, and holds each to have passed, once.
func (w *world) passed(t *testing.T, n int) {
	t.Helper()
	var counts map[ledger.State]int
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var err error
		if counts, err = w.ledger.Counts(t.Context()); err == nil && counts[ledger.Passed] >= n {
			break
		}
	}
	if len(counts) != 1 || counts[ledger.Passed] != n {
		t.Errorf("runs: %v, want %d that passed", counts, n)
	}
}

// Webhooks that come while another process keeps the database locked are refused
// together, and taken afterwards; the server goes on by itself.
func TestDatabaseIsLocked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger.db")
	w := newWorldOn(t, file)
	w.serve(t, server.Options{}, passes)
	w.accepted(t, 0)
	other, err := sql.Open("sqlite", "file:"+file+"?_txlock=immediate&_pragma=busy_timeout(5000)")
	must(t, err)
	defer other.Close()
	lock, err := other.BeginTx(t.Context(), nil)
	must(t, err)
	const n = 40
	var refused sync.WaitGroup
	for i := range n {
		refused.Go(func() {
			if code, said := w.deliver(t, http.DefaultClient, fmt.Sprint("d", i+1), push(i+1)); code != http.StatusServiceUnavailable {
				t.Errorf("while it is locked: %d %s", code, said)
			}
		})
	}
	refused.Wait()
	if code, said := w.request(t, http.MethodGet, "/readyz", ""); code != http.StatusServiceUnavailable {
		t.Errorf("ready while it is locked: %d %s", code, said)
	}
	must(t, lock.Rollback())
	for i := range n {
		w.accepted(t, i+1)
	}
	w.passed(t, n+1)
}

// PostgreSQL ends as in a crash while webhooks come in and runs end: what was
// accepted is there afterwards, what was refused is taken when it comes again.
func TestPostgresRestarts(t *testing.T) {
	pg := &need.Postgres{Sync: true}
	t.Cleanup(func() { must(t, pg.Stop()) })
	w := newWorldOn(t, pg.Database(t))
	w.serve(t, server.Options{Runs: 4}, passes)
	const n = 300
	var refused atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		for i := range n {
			time.Sleep(5 * time.Millisecond)
			all.Go(func() { w.insists(t, i, &refused) })
		}
	})
	time.Sleep(500 * time.Millisecond)
	for range 3 {
		must(t, pg.Kill())
		if code, said := w.deliver(t, http.DefaultClient, "down", push(n)); code != http.StatusServiceUnavailable {
			t.Errorf("without a database: %d %s", code, said)
		}
		must(t, pg.Start())
		time.Sleep(300 * time.Millisecond)
	}
	all.Wait()
	w.passed(t, n)
	t.Logf("%d deliveries, %d refusals", n, refused.Load())
}

// insists delivers a push again until it is accepted, as a forge or a person there does.
func (w *world) insists(t *testing.T, i int, refused *atomic.Int64) {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		switch code, said := w.deliver(t, http.DefaultClient, fmt.Sprint("d", i), push(i)); code {
		case http.StatusAccepted:
			return
		case http.StatusServiceUnavailable:
			refused.Add(1)
		default:
			t.Errorf("delivery %d: %d %s", i, code, said)
			return
		}
	}
	t.Errorf("delivery %d was never accepted", i)
}
