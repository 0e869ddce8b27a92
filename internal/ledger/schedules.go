package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/adhocore/gronx"

	"slipway/pipeline"
)

// Schedule makes runs of a branch by the clock.
type Schedule struct {
	Repo    string    `json:"-"`    // ID
	Of      string    `json:"repo"` // its name
	Name    string    `json:"name"`
	Cron    string    `json:"cron"` // minute hour day month weekday
	Zone    string    `json:"timezone"`
	Branch  string    `json:"branch"`
	Due     time.Time `json:"due"`           // when the next run is made
	Run     string    `json:"run,omitempty"` // that it made last
	Created time.Time `json:"created"`
}

// Next is the first time after another at which the schedule is due. A time of day
// that a change of the clocks leaves out is not due that day; one that comes twice
// is due once.
func (s Schedule) Next(after time.Time) (time.Time, error) {
	zone, err := time.LoadLocation(s.Zone)
	if err != nil || s.Zone == "Local" {
		return time.Time{}, fmt.Errorf("%q is no time zone; write a name such as Europe/Berlin, or UTC", s.Zone)
	}
	// The parser would take seconds and years, too, which other programs read otherwise.
	if words := strings.Fields(s.Cron); len(words) != 5 && !(len(words) == 1 && strings.HasPrefix(s.Cron, "@")) || !gronx.IsValid(s.Cron) {
		return time.Time{}, fmt.Errorf(`%q says no times; write "MINUTE HOUR DAY MONTH WEEKDAY" as crontab(5) has it: "0 3 * * *" is at 3:00 every day`, s.Cron)
	}
	next, err := gronx.NextTickAfter(s.Cron, after.In(zone), false)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q comes never: %w", s.Cron, err)
	}
	return next, nil
}

// AddSchedule keeps a schedule. Its first run is that of the next time it names.
func (l *Ledger) AddSchedule(ctx context.Context, s Schedule) (Schedule, error) {
	s.Created = time.Now()
	var err error
	if s.Due, err = s.Next(s.Created); err != nil {
		return s, err
	}
	err = l.change(ctx, "add a schedule", func(tx *sql.Tx) error {
		n, err := affected(tx.ExecContext(ctx, `INSERT INTO schedules (repo, name, cron, zone, branch, due, created) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
			s.Repo, s.Name, s.Cron, s.Zone, s.Branch, ms(s.Due), ms(s.Created)))
		if err == nil && n == 0 {
			err = fmt.Errorf("%s has a schedule called %s; give another name, or remove it with `slipway schedules rm`", s.Of, s.Name)
		}
		return err
	})
	return s, err
}

const schedulesOf = `SELECT s.repo, p.name, s.name, s.cron, s.zone, s.branch, s.due, s.run, s.created FROM schedules s JOIN repos p ON p.id = s.repo `

func scanSchedule(r row) (s Schedule, err error) {
	var due, created int64
	err = r.Scan(&s.Repo, &s.Of, &s.Name, &s.Cron, &s.Zone, &s.Branch, &due, &s.Run, &created)
	s.Due, s.Created = at(due), at(created)
	return s, err
}

// Schedules lists the schedules of all repositories.
func (l *Ledger) Schedules(ctx context.Context) ([]Schedule, error) {
	return rows(ctx, l.read, scanSchedule, schedulesOf+`ORDER BY p.name, s.name`)
}

// DueSchedules lists those that a run is to be made for, the longest due first.
func (l *Ledger) DueSchedules(ctx context.Context, now time.Time) ([]Schedule, error) {
	return rows(ctx, l.read, scanSchedule, schedulesOf+`WHERE s.due <= $1 ORDER BY s.due`, ms(now))
}

// DropSchedule removes a schedule; its runs stay.
func (l *Ledger) DropSchedule(ctx context.Context, repo, name string) error {
	return l.change(ctx, "remove a schedule", func(tx *sql.Tx) error {
		n, err := affected(tx.ExecContext(ctx, `DELETE FROM schedules WHERE repo = $1 AND name = $2`, repo, name))
		if err == nil && n == 0 {
			err = ErrNone
		}
		return err
	})
}

// Keep makes the run of a schedule that is due, of the commit that its branch is
// at, and says when it is due next: after now, so that times which have been missed
// make one run together. Both stand in one transaction, which has the schedule due
// as s has it or does nothing: however many servers there are, and whenever they
// are killed, one due time is one run. None is made while the last one is not over,
// and none where there is no commit.
func (l *Ledger) Keep(ctx context.Context, s Schedule, run, commit string, now time.Time) (made bool, err error) {
	next, err := s.Next(now)
	if err != nil {
		return false, fmt.Errorf("schedule %s of %s: %w", s.Name, s.Of, err)
	}
	due := s.Due.UTC().Format(time.RFC3339)
	a := &arrival{delivery: Delivery{Repo: s.Repo, ID: "schedule " + s.Name + " " + due, Event: string(pipeline.Schedule), At: now}, changes: []Change{{
		Run: run, Kind: pipeline.Schedule, Ref: "refs/heads/" + s.Branch, Base: s.Name, Before: due, After: commit, Trusted: true,
		Title: "schedule " + s.Name, State: Queued,
	}}}
	err = l.change(ctx, "keep a schedule", func(tx *sql.Tx) error {
		made = false
		n, err := affected(tx.ExecContext(ctx, `UPDATE schedules SET due = $1 WHERE repo = $2 AND name = $3 AND due = $4`, ms(next), s.Repo, s.Name, ms(s.Due)))
		if err != nil || n == 0 || commit == "" {
			return err
		}
		on, err := one(ctx, tx, scanOne[int], `SELECT count(*) FROM runs WHERE id = $1 AND state IN ('queued', 'running')`, s.Run)
		if err != nil || on > 0 {
			return err
		}
		if err := l.writeArrivals(ctx, tx, []*arrival{a}); err != nil {
			return err
		}
		made = len(a.accepted.Runs) > 0
		_, err = tx.ExecContext(ctx, `UPDATE schedules SET run = $1 WHERE repo = $2 AND name = $3`, run, s.Repo, s.Name)
		return err
	})
	return made && err == nil, err
}
