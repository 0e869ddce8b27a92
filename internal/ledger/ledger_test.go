package ledger_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/pipeline"
)

// onBoth runs a test on SQLite and on PostgreSQL.
func onBoth(t *testing.T, test func(t *testing.T, database string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "ledger.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, server.Database(t)) })
}

func open(t testing.TB, database, owner string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(context.Background(), ledger.Options{Database: database, Owner: owner, Key: ledger.Key{1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// opened is a ledger with a repository.
func opened(t testing.TB, database string) *ledger.Ledger {
	t.Helper()
	l := open(t, database, "here")
	must(t, l.AddRepo(t.Context(), ledger.Repo{ID: "shop", Name: "example/shop", URL: "https://example.com/shop.git", Forge: "gitea", Secret: []byte("hook-secret"), Credential: []byte("clone-token"), Created: time.Now()}))
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hash(n int) string { return fmt.Sprintf("%040x", n+1) }

// push is a delivery of one push to a branch.
func push(id string, branch string, n int) (ledger.Delivery, []ledger.Change) {
	return ledger.Delivery{Repo: "shop", ID: id, Event: "push", At: time.Now()},
		[]ledger.Change{{Run: fmt.Sprintf("run-%s-%s-%d", id, branch, n), Kind: pipeline.Push, Ref: "refs/heads/" + branch, Before: hash(n - 1), After: hash(n), Trusted: true, Title: "change", State: ledger.Queued}}
}

func accept(t testing.TB, l *ledger.Ledger, d ledger.Delivery, c []ledger.Change) ledger.Accepted {
	t.Helper()
	a, err := l.Accept(t.Context(), d, c)
	must(t, err)
	return a
}

func take(t testing.TB, l *ledger.Ledger, record string) ledger.Run {
	t.Helper()
	r, err := l.Take(t.Context(), record)
	must(t, err)
	return r
}

func runOf(t testing.TB, l *ledger.Ledger, id string) ledger.Run {
	t.Helper()
	r, err := l.Run(t.Context(), id)
	must(t, err)
	return r
}

func TestOneEventIsOneRun(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		d, c := push("d1", "main", 1)
		if a := accept(t, l, d, c); a.Duplicate || len(a.Runs) != 1 {
			t.Fatalf("first: %+v", a)
		}
		c[0].Run = "another"
		if a := accept(t, l, d, c); !a.Duplicate || len(a.Runs) != 0 || len(a.Again) != 0 {
			t.Errorf("the same delivery while its run waits: %+v", a)
		}
		d.ID = "d2" // what a reconciler or a second hook tells
		if a := accept(t, l, d, c); a.Duplicate || len(a.Runs) != 0 || len(a.Again) != 0 {
			t.Errorf("another delivery of the same push: %+v", a)
		}
		all, err := l.Runs(t.Context(), ledger.Filter{})
		must(t, err)
		if len(all) != 1 || all[0].State != ledger.Queued || all[0].Name != "example/shop" || !all[0].Trusted {
			t.Errorf("runs: %+v", all)
		}
	})
}

func TestRedeliveryAfterFailureIsAnotherAttempt(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		d, c := push("d1", "main", 1)
		id := c[0].Run
		for n, end := range []struct {
			state ledger.State
			again bool
		}{{ledger.Failed, true}, {ledger.Broken, true}, {ledger.Canceled, true}, {ledger.Passed, false}} {
			accept(t, l, d, c)
			r := take(t, l, fmt.Sprint("record", n))
			if r.ID != id || r.Attempts != n+1 {
				t.Fatalf("took %s, attempt %d; want %s, %d", r.ID, r.Attempts, id, n+1)
			}
			must(t, l.Finish(t.Context(), r, ledger.End{State: end.state, Reason: "because"}))
			other := d
			other.ID = "d-other" // of something else that tells the same: no reason to try again
			if a := accept(t, l, other, c); len(a.Again) > 0 {
				t.Errorf("after %s another delivery gave %+v", end.state, a)
			}
			if end.again {
				continue
			}
			if a := accept(t, l, d, c); !a.Duplicate || len(a.Runs)+len(a.Again) > 0 {
				t.Errorf("redelivery after %s: %+v", end.state, a)
			}
		}
		attempts, err := l.Attempts(t.Context(), id)
		must(t, err)
		if len(attempts) != 4 || attempts[0].State != ledger.Failed || attempts[3].State != ledger.Passed {
			t.Errorf("attempts: %+v", attempts)
		}
	})
}

// Many deliveries at once, a fifth of them duplicates, from two ledgers on
// PostgreSQL: each event has one run.
func TestAcceptRaces(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		both := []*ledger.Ledger{l, open(t, database, "there")}
		const events, copies = 200, 3
		var wg sync.WaitGroup
		var mu sync.Mutex
		made := map[string]int{}
		for n := range events * copies {
			wg.Go(func() {
				event := n % events
				d, c := push(fmt.Sprint("d", event), "main", event)
				c[0].Run += fmt.Sprint("-", n/events)
				a, err := both[n%2].Accept(t.Context(), d, c)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("delivery %d: %v", n, err)
				}
				for range a.Runs {
					made[d.ID]++
				}
			})
		}
		wg.Wait()
		counts, err := l.Counts(t.Context())
		must(t, err)
		if len(made) != events || counts[ledger.Queued] != events {
			t.Errorf("%d of %d events have a run, %d are queued", len(made), events, counts[ledger.Queued])
		}
		for id, n := range made {
			if n != 1 {
				t.Errorf("%s has %d runs", id, n)
			}
		}
	})
}

func TestBadDeliverySpoilsNoOther(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		var wg sync.WaitGroup
		errs := make([]error, 40)
		for n := range errs {
			wg.Go(func() {
				d, c := push(fmt.Sprint("d", n), "main", n)
				if n%4 == 0 {
					d.Repo = "no such repository"
				}
				_, errs[n] = l.Accept(t.Context(), d, c)
			})
		}
		wg.Wait()
		for n, err := range errs {
			if bad := n%4 == 0; bad != (err != nil) {
				t.Errorf("delivery %d: %v", n, err)
			}
		}
		counts, err := l.Counts(t.Context())
		must(t, err)
		if counts[ledger.Queued] != 30 {
			t.Errorf("%d runs wait, want 30", counts[ledger.Queued])
		}
	})
}

func TestEachRunIsTakenOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		both := []*ledger.Ledger{l, open(t, database, "there")}
		const runs = 40
		for n := range runs {
			accept2(t, l, n)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		taken := map[string]int{}
		for w := range 8 {
			wg.Go(func() {
				for n := 0; ; n++ {
					r, err := both[w%2].Take(t.Context(), fmt.Sprintf("record-%d-%d", w, n))
					if errors.Is(err, ledger.ErrNone) {
						return
					}
					mu.Lock()
					if err != nil {
						t.Error(err)
						mu.Unlock()
						return
					}
					taken[r.ID]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(taken) != runs {
			t.Errorf("%d of %d runs were taken", len(taken), runs)
		}
		for id, n := range taken {
			if n != 1 {
				t.Errorf("%s was taken %d times", id, n)
			}
		}
	})
}

func accept2(t testing.TB, l *ledger.Ledger, n int) string {
	t.Helper()
	d, c := push(fmt.Sprint("d", n), fmt.Sprint("b", n), n)
	accept(t, l, d, c)
	return c[0].Run
}

func TestRecoverTakesUpWhatWasCutOff(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		id, other := accept2(t, l, 1), accept2(t, l, 2)
		r := take(t, l, "a")
		there := open(t, database, "there")
		s := take(t, there, "b") // another machine's, alive
		if r.ID != id || s.ID != other {
			t.Fatalf("took %s and %s", r.ID, s.ID)
		}
		again := open(t, database, "here")
		n, err := again.Recover(t.Context(), true)
		must(t, err)
		if n != 1 || runOf(t, l, id).State != ledger.Queued || runOf(t, l, other).State != ledger.Running {
			t.Fatalf("%d recovered; %s, %s", n, runOf(t, l, id).State, runOf(t, l, other).State)
		}
		if err := l.Finish(t.Context(), r, ledger.End{State: ledger.Passed}); !errors.Is(err, ledger.ErrTaken) {
			t.Errorf("what was lost could be finished: %v", err)
		}
		if r := take(t, again, "c"); r.ID != id || r.Attempts != 2 {
			t.Errorf("took %s, attempt %d", r.ID, r.Attempts)
		}
		if n, err := again.Recover(t.Context(), false); n != 0 || err != nil {
			t.Errorf("a live lease was taken: %d, %v", n, err)
		}
		age(t, database, "there")
		if n, err := again.Recover(t.Context(), false); n != 1 || err != nil {
			t.Errorf("a dead lease was not taken: %d, %v", n, err)
		}
		if err := there.Finish(t.Context(), s, ledger.End{State: ledger.Passed}); !errors.Is(err, ledger.ErrTaken) {
			t.Errorf("the dead one could finish: %v", err)
		}
	})
}

// A database that ends after it has written something down, and before it could say
// so, leaves a run that its owner does not know of.
func TestWhatWasTakenUnawares(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		first, second := accept2(t, l, 1), accept2(t, l, 2)
		if r := take(t, l, "a"); r.ID != first || r.Attempts != 1 {
			t.Errorf("took %s, attempt %d", r.ID, r.Attempts)
		}
		if r := take(t, l, "a"); r.ID != first || r.Attempts != 1 {
			t.Errorf("asked again, took %s, attempt %d", r.ID, r.Attempts)
		}
		take(t, l, "b")
		age(t, database, "here")
		must(t, l.Beat(t.Context(), []string{first})) // it knows of this one
		if n, err := l.Recover(t.Context(), false); n != 1 || err != nil {
			t.Errorf("%d recovered, %v", n, err)
		}
		if r := take(t, l, "c"); r.ID != second || r.Attempts != 2 {
			t.Errorf("took %s, attempt %d", r.ID, r.Attempts)
		}
	})
}

// raw opens the database beside a ledger.
func raw(t testing.TB, database string) *sql.DB {
	t.Helper()
	driver := "sqlite"
	if strings.HasPrefix(database, "postgres:") {
		driver = "pgx"
	}
	db, err := sql.Open(driver, database)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// age lets the leases of an owner end.
func age(t testing.TB, database, owner string) {
	t.Helper()
	_, err := raw(t, database).Exec(`UPDATE attempts SET beat = beat - $1 WHERE owner = $2`, ledger.Lease.Milliseconds()+1, owner)
	must(t, err)
}

func TestRunThatKillsItsServerEnds(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		id := accept2(t, l, 1)
		n := 0
		for ; runOf(t, l, id).State != ledger.Broken; n++ {
			if n > 50 {
				t.Fatal("it is tried for ever")
			}
			take(t, l, fmt.Sprint("r", n))
			_, err := l.Recover(t.Context(), true)
			must(t, err)
		}
		if r := runOf(t, l, id); n != 10 || !strings.Contains(r.Reason, "10 times") || r.Ended == nil {
			t.Errorf("after %d losses: %+v", n, r)
		}
	})
}

func TestNewerPushEndsOlder(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		d, c := push("d1", "main", 1)
		accept(t, l, d, c)
		running := take(t, l, "a")
		ids := []string{running.ID}
		for n := 2; n <= 4; n++ {
			d, c := push(fmt.Sprint("d", n), "main", n)
			c[0].Newest = n > 2
			accept(t, l, d, c)
			ids = append(ids, c[0].Run)
		}
		accept2(t, l, 9) // another branch
		if r := runOf(t, l, ids[0]); r.State != ledger.Running || !strings.Contains(r.Cancel, ids[2]) {
			t.Errorf("the running one: %+v", r)
		}
		for _, id := range ids[1:3] {
			if r := runOf(t, l, id); r.State != ledger.Canceled || r.Ended == nil {
				t.Errorf("%s is %s", id, r.State)
			}
		}
		if s := runOf(t, l, ids[3]).State; s != ledger.Queued {
			t.Errorf("the newest is %s", s)
		}
		why, err := l.Cancels(t.Context())
		must(t, err)
		if len(why) != 1 || why[ids[0]] == "" {
			t.Errorf("to be ended: %v", why)
		}
		if n, err := l.Recover(t.Context(), true); n != 0 || err != nil || runOf(t, l, ids[0]).State != ledger.Canceled {
			t.Errorf("cut off while it was to end: %d, %v, %s", n, err, runOf(t, l, ids[0]).State)
		}
	})
}

func TestHeldUntilAllowed(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		d, c := push("d1", "main", 1)
		c[0].Kind, c[0].Ref, c[0].Trusted, c[0].State, c[0].Reason = pipeline.PullRequest, "refs/pull/7/head", false, ledger.Held, "of a fork"
		accept(t, l, d, c)
		if _, err := l.Take(t.Context(), "a"); !errors.Is(err, ledger.ErrNone) {
			t.Fatalf("a held run was taken: %v", err)
		}
		id := c[0].Run
		var refused *ledger.Refusal
		if err := l.Allow(t.Context(), id, hash(7), "ann"); !errors.As(err, &refused) {
			t.Errorf("another commit was allowed: %v", err)
		}
		must(t, l.Allow(t.Context(), id, hash(1), "ann"))
		if r := take(t, l, "a"); r.ID != id || r.Trusted || r.Allowed != "ann" {
			t.Errorf("took %+v", r)
		}
		if err := l.Allow(t.Context(), id, hash(1), "ann"); !errors.As(err, &refused) {
			t.Errorf("allowed twice: %v", err)
		}
	})
}

func TestCancelAndRerun(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		id := accept2(t, l, 1)
		var refused *ledger.Refusal
		if err := l.Rerun(t.Context(), id, ledger.Again{}); !errors.As(err, &refused) {
			t.Errorf("rerun of what waits: %v", err)
		}
		must(t, l.Cancel(t.Context(), id, "ann says so"))
		if err := l.Cancel(t.Context(), id, "again"); !errors.As(err, &refused) {
			t.Errorf("cancel of what has ended: %v", err)
		}
		must(t, l.Rerun(t.Context(), id, ledger.Again{}))
		r := take(t, l, "a")
		must(t, l.GiveBack(t.Context(), r, "the server stops"))
		r = take(t, l, "b")
		must(t, l.Cancel(t.Context(), id, "ann says so"))
		why, err := l.Cancels(t.Context())
		must(t, err)
		if r.Attempts != 2 || why[id] != "ann says so" {
			t.Errorf("attempt %d, %v", r.Attempts, why)
		}
		if err := l.Cancel(t.Context(), "nothing", ""); !errors.Is(err, ledger.ErrNone) {
			t.Errorf("cancel of nothing: %v", err)
		}
	})
}

func TestStatusesSayTheLatest(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		id := accept2(t, l, 1)
		due := func() []ledger.Status {
			all, err := l.DueStatuses(t.Context(), time.Now().Add(time.Second), 10)
			must(t, err)
			return all
		}
		if s := due(); len(s) != 1 || s[0].State != ledger.Queued || s[0].SHA != hash(1) {
			t.Fatalf("after acceptance: %+v", s)
		}
		r := take(t, l, "a")
		must(t, l.Finish(t.Context(), r, ledger.End{State: ledger.Failed, Reason: "web/unit: exit code 1", Result: json.RawMessage(`{"x":1}`)}))
		s := due()
		if len(s) != 1 || s[0].State != ledger.Failed || s[0].Says != "web/unit: exit code 1" || s[0].Run != id {
			t.Fatalf("after the end: %+v", s)
		}
		must(t, l.SendLater(t.Context(), s[0], time.Now().Add(time.Hour), "forge is down"))
		if len(due()) != 0 {
			t.Error("what was put off is due")
		}
		must(t, l.Rerun(t.Context(), id, ledger.Again{}))
		if s := due(); len(s) != 1 || s[0].State != ledger.Queued {
			t.Fatalf("after a rerun: %+v", s)
		}
		must(t, l.Sent(t.Context(), due()[0], ""))
		if len(due()) != 0 {
			t.Error("what was sent is due")
		}
		if got := runOf(t, l, id); string(got.Result) != `{"x":1}` {
			t.Errorf("result %s", got.Result)
		}
	})
}

func TestPromotionsSurvive(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		first, second := accept2(t, l, 1), accept2(t, l, 2)
		a, b := take(t, l, "a"), take(t, l, "b")
		must(t, l.Finish(t.Context(), b, ledger.End{State: ledger.Passed, Promote: true}))
		must(t, l.Finish(t.Context(), a, ledger.End{State: ledger.Passed, Promote: true}))
		soon := time.Now().Add(time.Second)
		r, p, err := l.TakePromotion(t.Context(), soon)
		must(t, err)
		if r.ID != first || p.Tries != 1 {
			t.Fatalf("took %s, try %d", r.ID, p.Tries)
		}
		r, p, err = l.TakePromotion(t.Context(), soon) // the answer did not come
		must(t, err)
		if r.ID != first || p.Tries != 2 {
			t.Fatalf("asked again, took %s, try %d", r.ID, p.Tries)
		}
		_, err = l.Recover(t.Context(), true) // killed while it was on
		must(t, err)
		r, p, err = l.TakePromotion(t.Context(), soon)
		must(t, err)
		if r.ID != first || p.Tries != 3 {
			t.Fatalf("after a crash took %s, try %d", r.ID, p.Tries)
		}
		must(t, l.EndPromotion(t.Context(), p, "the registry is down", time.Now().Add(time.Hour)))
		r, p, err = l.TakePromotion(t.Context(), soon)
		must(t, err)
		if r.ID != second {
			t.Fatalf("took %s", r.ID)
		}
		must(t, l.EndPromotion(t.Context(), p, "test: done", time.Time{}))
		if _, _, err := l.TakePromotion(t.Context(), soon); !errors.Is(err, ledger.ErrNone) {
			t.Errorf("nothing is due: %v", err)
		}
		if got := runOf(t, l, second).Promotion; got == nil || got.State != ledger.PromotionDone || got.Detail != "test: done" {
			t.Errorf("promotion %+v", got)
		}
		if got := runOf(t, l, first).Promotion; got == nil || got.State != ledger.PromotionDue {
			t.Errorf("promotion %+v", got)
		}
	})
}

func TestNewerPassedRun(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		var runs []ledger.Run
		for n := range 2 {
			d, c := push(fmt.Sprint("d", n), "main", n)
			accept(t, l, d, c)
			runs = append(runs, take(t, l, fmt.Sprint("r", n)))
		}
		must(t, l.Finish(t.Context(), runs[0], ledger.End{State: ledger.Passed}))
		if newer, err := l.Newer(t.Context(), runs[0]); newer || err != nil {
			t.Errorf("while the newer runs: %v, %v", newer, err)
		}
		must(t, l.Finish(t.Context(), runs[1], ledger.End{State: ledger.Passed}))
		if newer, err := l.Newer(t.Context(), runs[0]); !newer || err != nil {
			t.Errorf("when the newer has passed: %v, %v", newer, err)
		}
		if newer, err := l.Newer(t.Context(), runs[1]); newer || err != nil {
			t.Errorf("of the newest: %v, %v", newer, err)
		}
	})
}

// A run that is put off waits in the queue: others go before it, and those that would
// find what it has found go behind them.
func TestPutOff(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		must(t, l.AddRepo(t.Context(), ledger.Repo{ID: "other", Name: "example/other", URL: "https://example.com/other.git"}))
		first, second := accept2(t, l, 1), accept2(t, l, 2)
		d, c := push("d3", "b3", 3)
		d.Repo = "other"
		accept(t, l, d, c)
		other := c[0].Run

		a := take(t, l, "a")
		must(t, l.PutOff(t.Context(), a, "nobody answers", time.Now().Add(time.Hour), time.Now()))
		if r := runOf(t, l, first); a.ID != first || r.State != ledger.Queued || r.Reason != "nobody answers" {
			t.Errorf("%s %s", r.State, r.Reason)
		}
		if err := l.PutOff(t.Context(), a, "twice", time.Now(), time.Now()); !errors.Is(err, ledger.ErrTaken) {
			t.Errorf("what is not held was put off: %v", err)
		}
		for _, want := range []string{other, second} {
			r := take(t, l, "of "+want)
			if r.ID != want {
				t.Errorf("took %s, want %s", r.ID, want)
			}
			must(t, l.Finish(t.Context(), r, ledger.End{State: ledger.Passed}))
		}
		if r, err := l.Take(t.Context(), "early"); !errors.Is(err, ledger.ErrNone) {
			t.Errorf("took %s before its time, %v", r.ID, err)
		}
		_, err := raw(t, database).Exec(`UPDATE runs SET due = 1 WHERE id = $1`, first)
		must(t, err)
		take(t, l, "b")
		_, err = l.Recover(t.Context(), true) // a kill changes nothing of that
		must(t, err)
		a = take(t, l, "c")
		must(t, l.PutOff(t.Context(), a, "", time.Now(), time.Now()))
		if waited, err := l.Waited(t.Context(), first); waited != 2 || a.Attempts != 3 || err != nil {
			t.Errorf("it has waited %d times in %d attempts, %v", waited, a.Attempts, err)
		}
		a = take(t, l, "d")
		must(t, l.Finish(t.Context(), a, ledger.End{State: ledger.Broken}))
		must(t, l.Rerun(t.Context(), first, ledger.Again{}))
		if waited, err := l.Waited(t.Context(), first); waited != 0 || err != nil {
			t.Errorf("a rerun has waited %d times, %v", waited, err)
		}

		a = take(t, l, "last")
		must(t, l.Cancel(t.Context(), first, "ann says so")) // while it runs
		must(t, l.PutOff(t.Context(), a, "", time.Now().Add(time.Hour), time.Now()))
		if a = take(t, l, "to end"); a.ID != first || a.Cancel != "ann says so" {
			t.Errorf("%+v", a)
		}
		third := accept2(t, l, 4)
		must(t, l.PutOff(t.Context(), a, "", time.Now(), time.Now().Add(time.Hour))) // it answers nobody
		if a = take(t, l, "to end again"); a.ID != first {
			t.Errorf("took %s", a.ID)
		}
		if r, err := l.Take(t.Context(), "none"); !errors.Is(err, ledger.ErrNone) || runOf(t, l, third).State != ledger.Queued {
			t.Errorf("took %s, which would find the same, %v", r.ID, err)
		}
		if r := take(t, l, "fresh after "+accept2(t, l, 5)); r.ID != "run-d5-b5-5" {
			t.Errorf("took %s, not what has come since", r.ID)
		}
	})
}

// Two who change a repository at once both have their will; what is refused changes nothing.
func TestChangeRepo(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		there := open(t, database, "there")
		must(t, l.AddRepo(t.Context(), ledger.Repo{ID: "other", Name: "example/other", URL: "https://example.com/other.git"}))
		deed := ledger.Deed{At: time.Now(), Actor: "ann", Action: "repos set", Object: "example/shop"}
		const each = 20
		var wg sync.WaitGroup
		for _, by := range []*ledger.Ledger{l, there} {
			wg.Go(func() {
				for range each {
					err := by.ChangeRepo(t.Context(), "example/shop", func(r *ledger.Repo) (ledger.Deed, error) {
						r.Policy.Deny = append(r.Policy.Deny, "tag")
						return deed, nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		must(t, l.ChangeRepo(t.Context(), "shop", func(r *ledger.Repo) (ledger.Deed, error) {
			r.Name, r.Secret, r.Credential = "example/site", []byte("another"), nil
			return deed, nil
		}))
		r, err := there.RepoNamed(t.Context(), "example/site")
		must(t, err)
		if len(r.Policy.Deny) != 2*each || r.ID != "shop" || string(r.Secret) != "another" || len(r.Credential) != 0 || r.URL != "https://example.com/shop.git" {
			t.Errorf("%+v", r)
		}
		var refused *ledger.Refusal
		for _, change := range []func(*ledger.Repo){
			func(r *ledger.Repo) { r.Name = "example/other" },
			func(r *ledger.Repo) { r.URL = "https://example.com/other.git" },
		} {
			err := l.ChangeRepo(t.Context(), "shop", func(r *ledger.Repo) (ledger.Deed, error) {
				change(r)
				return deed, nil
			})
			if !errors.As(err, &refused) {
				t.Errorf("the name or address of another was taken: %v", err)
			}
		}
		for _, name := range []string{"example/shop", ledger.Uploads} {
			if err := l.ChangeRepo(t.Context(), name, nil); !errors.Is(err, ledger.ErrNone) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if deeds, err := l.Deeds(t.Context(), 100); err != nil || len(deeds) != 2*each+1 {
			t.Errorf("%d deeds, %v", len(deeds), err)
		}
	})
}

func TestTokens(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := open(t, database, "here")
		secret, made, err := l.AddToken(t.Context(), "ci", ledger.Developer, time.Time{})
		must(t, err)
		if got, err := l.TokenOf(t.Context(), secret, time.Now()); err != nil || got.ID != made.ID || got.Role != ledger.Developer {
			t.Errorf("%+v, %v", got, err)
		}
		old, _, err := l.AddToken(t.Context(), "old", ledger.Admin, time.Now().Add(-time.Second))
		must(t, err)
		for _, wrong := range []string{"", "slipway_", secret + "0", secret[:len(secret)-1], old, made.ID} {
			if got, err := l.TokenOf(t.Context(), wrong, time.Now()); !errors.Is(err, ledger.ErrNone) {
				t.Errorf("%q let %+v in, %v", wrong, got, err)
			}
		}
		if _, _, err := l.AddToken(t.Context(), "ci", ledger.Viewer, time.Time{}); err == nil {
			t.Error("two tokens of one name")
		}
		if _, _, err := l.AddToken(t.Context(), "x", "root", time.Time{}); err == nil {
			t.Error("an unknown role was taken")
		}
		must(t, l.DropToken(t.Context(), "ci"))
		if _, err := l.TokenOf(t.Context(), secret, time.Now()); !errors.Is(err, ledger.ErrNone) {
			t.Errorf("a removed token: %v", err)
		}
	})
	roles := []ledger.Role{"", ledger.Viewer, ledger.Developer, ledger.Sysadmin, ledger.Admin}
	for i, have := range roles {
		for j, needed := range roles {
			if got, want := have.May(needed), i >= j && i > 0 && j > 0; got != want {
				t.Errorf("%q may what needs %q: %v", have, needed, got)
			}
		}
	}
}

func TestNoSecretIsInTheDatabase(t *testing.T) {
	database := filepath.Join(t.TempDir(), "ledger.db")
	l := opened(t, database)
	secret, _, err := l.AddToken(t.Context(), "ci", ledger.Viewer, time.Time{})
	must(t, err)
	r, err := l.Repo(t.Context(), "shop")
	must(t, err)
	if string(r.Secret) != "hook-secret" || string(r.Credential) != "clone-token" {
		t.Errorf("read back %q, %q", r.Secret, r.Credential)
	}
	files, err := filepath.Glob(database + "*")
	must(t, err)
	seen := false
	for _, f := range files {
		data, err := os.ReadFile(f)
		must(t, err)
		seen = seen || bytes.Contains(data, []byte("example/shop"))
		for _, s := range []string{"hook-secret", "clone-token", secret, secret[8:]} {
			if bytes.Contains(data, []byte(s)) {
				t.Errorf("%s holds %q", f, s)
			}
		}
	}
	if !seen {
		t.Errorf("the repository is in none of %v: is the test looking at the right files?", files)
	}
	other, err := ledger.Open(t.Context(), ledger.Options{Database: database, Key: ledger.Key{2}})
	must(t, err)
	defer other.Close()
	if _, err := other.Repo(t.Context(), "shop"); err == nil {
		t.Error("another key opens the secrets")
	}
}

func TestSchemaOfANewerSlipway(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		must(t, open(t, database, "here").Ping(t.Context()))
		_, err := raw(t, database).Exec(`UPDATE schema_version SET version = 99`)
		must(t, err)
		_, err = ledger.Open(t.Context(), ledger.Options{Database: database})
		if err == nil || !strings.Contains(err.Error(), "newer slipway") {
			t.Errorf("opened: %v", err)
		}
	})
}

// A locked database costs waiting or an error, which the forge is told, never a
// delivery that was said to be taken.
func TestDatabaseLocked(t *testing.T) {
	database := filepath.Join(t.TempDir(), "ledger.db")
	l := opened(t, database)
	db := raw(t, database)
	db.SetMaxOpenConns(1)
	_, err := db.Exec("BEGIN IMMEDIATE")
	must(t, err)
	impatient, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	d, c := push("d1", "main", 1)
	if _, err := l.Accept(impatient, d, c); err == nil {
		t.Fatal("a delivery was accepted that could not be written")
	}
	taken := make(chan error)
	d2, c2 := push("d2", "main", 2)
	go func() {
		_, err := l.Accept(context.WithoutCancel(t.Context()), d2, c2)
		taken <- err
	}()
	_, err = db.Exec("ROLLBACK")
	must(t, err)
	must(t, <-taken)
	runOf(t, l, c2[0].Run)
}

// What is on a full disk is still there, what does not fit is refused, and it
// goes on when there is room again. SQLite's own limit stands for the disk's.
func TestNoRoomLeft(t *testing.T) {
	database := filepath.Join(t.TempDir(), "ledger.db")
	l := opened(t, database)
	accept2(t, l, 0)
	must(t, l.Limit(t.Context(), true))
	accepted := []string{"run-d0-b0-0"}
	refused := 0
	for n := 1; n < 2000 && refused < 3; n++ {
		d, c := push(fmt.Sprint("d", n), fmt.Sprint("b", n), n)
		c[0].Title = strings.Repeat("long ", 2000)
		if _, err := l.Accept(t.Context(), d, c); err != nil {
			refused++
		} else {
			accepted = append(accepted, c[0].Run)
		}
	}
	if refused < 3 {
		t.Fatal("nothing was refused: the limit does not hold")
	}
	must(t, l.Limit(t.Context(), false))
	accept2(t, l, 3000)
	all, err := l.Runs(t.Context(), ledger.Filter{Limit: 10000})
	must(t, err)
	if len(all) != len(accepted)+1 {
		t.Errorf("%d runs are there, %d were accepted", len(all), len(accepted)+1)
	}
	for _, r := range all[1:] {
		if !slices.Contains(accepted, r.ID) {
			t.Errorf("%s was refused and is there", r.ID)
		}
	}
}

// An upload is run by the server that has its files, and by no other.
func TestUploadIsRunWhereItIs(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		here, there := opened(t, database), open(t, database, "there")
		event := pipeline.Event{Ref: "refs/heads/main", Dirty: true, Changed: []string{"a"}}
		asked := ledger.Asked{Upload: "sha256:1", Event: &event, Only: []string{"web"}}
		accept(t, here, ledger.Delivery{Repo: ledger.Uploads, ID: "u1", Event: "upload", At: time.Now()}, []ledger.Change{{
			Run: "u1", Kind: pipeline.Push, Ref: event.Ref, Before: "upload u1", State: ledger.Queued, Allowed: "ann", Here: true, Asked: asked,
		}})
		if r, err := there.Take(t.Context(), "r1"); !errors.Is(err, ledger.ErrNone) {
			t.Errorf("another server took %+v, %v", r, err)
		}
		r := take(t, here, "r2")
		if r.ID != "u1" || r.Name != ledger.Uploads || r.Allowed != "ann" || r.Trusted || r.Asked.Upload != asked.Upload || !r.Asked.Event.Dirty || !slices.Equal(r.Asked.Only, asked.Only) {
			t.Errorf("%+v", r)
		}
		must(t, here.Finish(t.Context(), r, ledger.End{State: ledger.Failed}))
		must(t, here.Rerun(t.Context(), "u1", ledger.Again{}))
		if _, err := there.Take(t.Context(), "r3"); !errors.Is(err, ledger.ErrNone) {
			t.Errorf("another server took its second attempt: %v", err)
		}
		if repos, err := here.Repos(t.Context()); err != nil || len(repos) != 1 {
			t.Errorf("repositories: %+v, %v", repos, err)
		}
		if r, err := here.RepoNamed(t.Context(), ledger.Uploads); !errors.Is(err, ledger.ErrNone) {
			t.Errorf("uploads are a repository: %+v, %v", r, err)
		}
		if r, err := here.Repo(t.Context(), ledger.Uploads); err != nil || r.Name != ledger.Uploads {
			t.Errorf("%+v, %v", r, err)
		}
	})
}
