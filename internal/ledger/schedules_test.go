package ledger_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/pipeline"
)

func TestNextTime(t *testing.T) {
	const berlin = "Europe/Berlin"
	for _, c := range []struct{ name, cron, zone, after, want string }{
		{"daily", "0 3 * * *", "UTC", "2026-03-01T03:00:00Z", "2026-03-02T03:00:00Z"},
		{"steps", "*/15 8-17 * * 1-5", "UTC", "2026-03-06T17:50:00Z", "2026-03-09T08:00:00Z"},
		{"a name", "@weekly", "UTC", "2026-03-04T00:00:00Z", "2026-03-08T00:00:00Z"},
		{"day of the month or of the week, as in crontab(5)", "0 0 13 * 5", "UTC", "2026-01-10T00:00:00Z", "2026-01-13T00:00:00Z"},
		{"another zone", "0 3 * * *", berlin, "2026-01-01T03:00:00Z", "2026-01-02T03:00:00+01:00"},
		{"the hour after the clocks went forward", "0 3 * * *", berlin, "2026-03-28T12:00:00Z", "2026-03-29T03:00:00+02:00"},
		{"a time that is left out", "30 2 * * *", berlin, "2026-03-28T12:00:00Z", "2026-03-30T02:30:00+02:00"},
		{"a time that comes twice", "30 2 * * *", berlin, "2026-10-24T12:00:00Z", "2026-10-25T02:30:00+01:00"},
		{"and after it", "30 2 * * *", berlin, "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"},
		{"a leap day", "0 0 29 2 *", "UTC", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			after, err := time.Parse(time.RFC3339, c.after)
			must(t, err)
			got, err := ledger.Schedule{Cron: c.cron, Zone: c.zone}.Next(after)
			must(t, err)
			if s := got.Format(time.RFC3339); s != c.want {
				t.Errorf("%s, want %s", s, c.want)
			}
		})
	}
	for _, c := range []struct{ cron, zone, want string }{
		{"0 3 * *", "UTC", "MINUTE HOUR DAY MONTH WEEKDAY"},
		{"0 0 3 * * *", "UTC", "MINUTE HOUR DAY MONTH WEEKDAY"},
		{"60 3 * * *", "UTC", "MINUTE HOUR"},
		{"", "UTC", "says no times"},
		{"@reboot", "UTC", "says no times"},
		{"0 0 31 2 *", "UTC", "comes never"},
		{"0 3 * * *", "Mars", "no time zone"},
		{"0 3 * * *", "Local", "no time zone"},
	} {
		if next, err := (ledger.Schedule{Cron: c.cron, Zone: c.zone}).Next(time.Now()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q in %s: %v, %v; want %q", c.cron, c.zone, next, err, c.want)
		}
	}
}

// dueSchedule is one that has been due since yesterday, each hour of which was missed.
func dueSchedule(t *testing.T, l *ledger.Ledger) ledger.Schedule {
	t.Helper()
	s, err := l.AddSchedule(t.Context(), ledger.Schedule{Repo: "shop", Of: "example/shop", Name: "nightly", Cron: "0 * * * *", Zone: "UTC", Branch: "main"})
	must(t, err)
	if due, err := l.DueSchedules(t.Context(), time.Now()); err != nil || len(due) != 0 {
		t.Errorf("due at once: %+v, %v", due, err)
	}
	_, err = l.Keep(t.Context(), s, "none", "", time.Now().Add(-24*time.Hour))
	must(t, err)
	due, err := l.DueSchedules(t.Context(), time.Now())
	must(t, err)
	if len(due) != 1 || due[0].Name != "nightly" || due[0].Of != "example/shop" {
		t.Fatalf("due: %+v", due)
	}
	return due[0]
}

// Whoever and however many find a schedule due, one makes one run of it; what was
// missed before is made up for by that one.
func TestScheduleIsKeptOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		here, there := opened(t, database), open(t, database, "there")
		s := dueSchedule(t, here)
		var made atomic.Int64
		var all sync.WaitGroup
		for n := range 8 {
			l := []*ledger.Ledger{here, there}[n%2]
			all.Go(func() {
				ok, err := l.Keep(t.Context(), s, fmt.Sprint("run", n), hash(n%2), time.Now()) // they may see another head
				if err != nil {
					t.Error(err)
				}
				if ok {
					made.Add(1)
				}
			})
		}
		all.Wait()
		runs, err := here.Runs(t.Context(), ledger.Filter{})
		must(t, err)
		if made.Load() != 1 || len(runs) != 1 {
			t.Fatalf("%d were told that they made a run; there are %+v", made.Load(), runs)
		}
		r := runs[0]
		if r.Kind != pipeline.Schedule || r.Base != "nightly" || !r.Trusted || r.State != ledger.Queued || r.Ref != "refs/heads/main" || r.Before != s.Due.Format(time.RFC3339) {
			t.Errorf("%+v", r)
		}
		listed, err := there.Schedules(t.Context())
		must(t, err)
		if len(listed) != 1 || listed[0].Run != r.ID || !listed[0].Due.After(time.Now()) || listed[0].Due.After(time.Now().Add(time.Hour)) {
			t.Errorf("%+v", listed)
		}
		if due, err := here.DueSchedules(t.Context(), time.Now()); err != nil || len(due) != 0 {
			t.Errorf("still due: %+v, %v", due, err)
		}

		// While that one waits or runs, a time passes without a run; then there is another, of the same commit.
		later := time.Now().Add(2 * time.Hour)
		if ok, err := here.Keep(t.Context(), listed[0], "while", r.Commit, later); ok || err != nil {
			t.Errorf("beside one that waits: %v, %v", ok, err)
		}
		must(t, here.Finish(t.Context(), take(t, here, "record"), ledger.End{State: ledger.Passed}))
		listed, err = here.Schedules(t.Context())
		must(t, err)
		if ok, err := here.Keep(t.Context(), listed[0], "next", r.Commit, later.Add(2*time.Hour)); !ok || err != nil {
			t.Errorf("the next time: %v, %v", ok, err)
		}
		statuses, err := here.DueStatuses(t.Context(), time.Now().Add(24*time.Hour), 10)
		must(t, err)
		if len(statuses) == 0 || statuses[0].Kind != pipeline.Schedule {
			t.Errorf("statuses: %+v", statuses)
		}
	})
}

func TestSchedulesAreAddedAndRemoved(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		s := ledger.Schedule{Repo: "shop", Of: "example/shop", Name: "nightly", Cron: "@daily", Zone: "Europe/Berlin", Branch: "main"}
		_, err := l.AddSchedule(t.Context(), s)
		must(t, err)
		if _, err := l.AddSchedule(t.Context(), s); err == nil || !strings.Contains(err.Error(), "schedules rm") {
			t.Errorf("the same name again: %v", err)
		}
		s.Name, s.Cron = "other", "never"
		if _, err := l.AddSchedule(t.Context(), s); err == nil {
			t.Error("a schedule without a time is taken")
		}
		must(t, l.DropSchedule(t.Context(), "shop", "nightly"))
		if err := l.DropSchedule(t.Context(), "shop", "nightly"); !errors.Is(err, ledger.ErrNone) {
			t.Errorf("twice removed: %v", err)
		}
		dueSchedule(t, l)
		must(t, l.DropRepo(t.Context(), "shop"))
		if all, err := l.Schedules(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("without their repository: %+v, %v", all, err)
		}
	})
}

// Where a run cannot be written its schedule stays due: half of it is never there.
func TestScheduleAndRunAreOne(t *testing.T) {
	l := opened(t, filepath.Join(t.TempDir(), "ledger.db"))
	s := dueSchedule(t, l)
	must(t, l.Limit(t.Context(), true)) // the disk is full soon
	name := strings.Repeat("n", 200_000)
	if ok, err := l.Keep(t.Context(), s, name, hash(1), time.Now()); ok || err == nil {
		t.Fatalf("on a full disk: %v, %v", ok, err)
	}
	due, err := l.DueSchedules(t.Context(), time.Now())
	must(t, err)
	runs, err := l.Runs(t.Context(), ledger.Filter{})
	must(t, err)
	if len(due) != 1 || len(runs) != 0 {
		t.Fatalf("half of it was written: %d due, %d runs", len(due), len(runs))
	}
	must(t, l.Limit(t.Context(), false))
	if ok, err := l.Keep(t.Context(), due[0], "at last", hash(1), time.Now()); !ok || err != nil {
		t.Errorf("with room again: %v, %v", ok, err)
	}
}
