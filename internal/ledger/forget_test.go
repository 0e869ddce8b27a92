package ledger_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"slipway/internal/ledger"
)

// Runs that ended long ago go, with all that hangs on them; those do not that are to
// be promoted, that a schedule had last, that wait or run, or that another server has
// tried which is there still.
func TestOldRuns(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		there := open(t, database, "there")
		db := raw(t, database)
		year := 365 * 24 * time.Hour
		before := time.Now().Add(-year)
		age := func(id string) {
			t.Helper()
			for _, statement := range []string{
				`UPDATE runs SET created = created - $1, ended = CASE ended WHEN 0 THEN 0 ELSE ended - $2 END WHERE id = $3`,
				`UPDATE attempts SET started = started - $1, ended = ended - $2 WHERE run = $3`,
			} {
				_, err := db.Exec(statement, 2*year.Milliseconds(), 2*year.Milliseconds(), id)
				must(t, err)
			}
		}
		old := func() (ids []string, seqs []int64) {
			t.Helper()
			for behind := int64(0); ; {
				some, err := l.OldRuns(t.Context(), before, behind, 2)
				must(t, err)
				if len(some) == 0 {
					return ids, seqs
				}
				for _, r := range some {
					ids, seqs, behind = append(ids, r.ID), append(seqs, r.Seq), r.Seq
				}
			}
		}
		ended := func(n int, by *ledger.Ledger, e ledger.End) string {
			id := accept2(t, l, n)
			r := take(t, by, "record of "+id)
			must(t, by.Finish(t.Context(), r, e))
			return id
		}
		passed := ledger.End{State: ledger.Passed, Result: []byte(`{"images": []}`)}
		plain, again := ended(1, l, passed), ended(2, l, ledger.End{State: ledger.Failed})
		promoted, promoting := ended(3, l, ledger.End{State: ledger.Passed, Promote: true}), ended(4, l, ledger.End{State: ledger.Passed, Promote: true})
		_, p, err := l.TakePromotion(t.Context(), time.Now())
		must(t, err)
		must(t, l.EndPromotion(t.Context(), p, "test: done", time.Time{}))
		others := ended(5, there, passed)
		scheduled := ended(6, l, passed)
		_, err = l.AddSchedule(t.Context(), ledger.Schedule{Repo: "shop", Name: "nightly", Cron: "@daily", Zone: "UTC", Branch: "main"})
		must(t, err)
		_, err = db.Exec(`UPDATE schedules SET run = $1`, scheduled)
		must(t, err)
		d, c := push("d7", "b7", 7)
		c[0].State = ledger.Held
		accept(t, l, d, c)
		held := c[0].Run
		d, c = push("d8", "b8", 8)
		c[0].State, c[0].Reason = ledger.Skipped, "nobody wants it"
		accept(t, l, d, c)
		skipped := c[0].Run
		waiting := accept2(t, l, 9)

		if ids, _ := old(); len(ids) > 0 {
			t.Errorf("old on the first day: %v", ids)
		}
		for _, id := range []string{plain, again, promoted, promoting, others, scheduled, held, skipped, waiting} {
			age(id)
		}
		want := []string{plain, again, promoted, others, held, skipped}
		ids, _ := old()
		if !slices.Equal(ids, want) {
			t.Errorf("old are %v, want %v", ids, want)
		}
		newest := ended(10, there, passed) // it is there: what it has tried is its own to forget
		want = slices.DeleteFunc(want, func(id string) bool { return id == others })
		var seqs []int64
		if ids, seqs = old(); !slices.Equal(ids, want) {
			t.Errorf("old are %v beside another server, want %v", ids, want)
		}

		must(t, l.Rerun(t.Context(), again, ledger.Again{})) // after it was listed
		n, err := l.ForgetRuns(t.Context(), seqs, before)
		if n != len(want)-1 || err != nil {
			t.Errorf("%d runs were forgotten, %v", n, err)
		}
		for _, id := range []string{plain, promoted, held, skipped} {
			if _, err := l.Run(t.Context(), id); !errors.Is(err, ledger.ErrNone) {
				t.Errorf("%s: %v", id, err)
			}
			left := 0
			for _, table := range []string{"attempts", "promotions", "statuses", "notices"} {
				var n int
				must(t, db.QueryRow(`SELECT count(*) FROM `+table+` WHERE run = $1`, id).Scan(&n))
				left += n
			}
			if left > 0 {
				t.Errorf("%d rows of %s are left", left, id)
			}
		}
		for _, id := range []string{again, promoting, others, scheduled, waiting, newest} {
			runOf(t, l, id)
		}
		if n, err := l.ForgetRuns(t.Context(), nil, before); n != 0 || err != nil {
			t.Errorf("none: %d, %v", n, err)
		}
	})
}

// A delivery is known for as long as any run of it stays, and is forgotten after.
func TestForgottenDelivery(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		d, c := push("d1", "main", 1)
		d.At = time.Now().Add(-ledger.KnownFor + time.Hour)
		accept(t, l, d, c)
		must(t, l.ForgetDeliveries(t.Context(), time.Now().Add(-ledger.KnownFor)))
		if a := accept(t, l, d, c); !a.Duplicate {
			t.Error("a delivery is not known within its time")
		}
		must(t, l.ForgetDeliveries(t.Context(), time.Now().Add(-ledger.KnownFor+2*time.Hour)))
		c[0].Run = "another"
		if a := accept(t, l, d, c); a.Duplicate || len(a.Runs) > 0 {
			t.Errorf("after its time: %+v; the run is there still", a)
		}
	})
}
