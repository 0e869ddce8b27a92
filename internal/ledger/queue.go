package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Lease is how long an attempt is believed to live after its last beat. Of its own
// attempts an owner knows at its start that they are dead.
const Lease = time.Minute

// maxLost is how often a run may end with the process that runs it. One that
// always kills its server must not do so for ever.
const maxLost = 10

// Take gives the run that has waited longest, of those that were not put off, to this
// owner, as a new attempt with the given record, or an ErrNone. One that was put off
// waits from the time until which it was. What was not is due whatever the clocks of
// several servers say. Whoever gets another error asks with the same record again: the
// database may have written down what it could not tell any more.
func (l *Ledger) Take(ctx context.Context, record string) (r Run, err error) {
	err = l.change(ctx, "take a run", func(tx *sql.Tx) error {
		now := ms(time.Now())
		r, err = one(ctx, tx, scanRun, runsOf+`JOIN attempts a ON a.run = r.id WHERE a.record = $1 AND a.ended = 0`, record)
		if !errors.Is(err, ErrNone) {
			return err
		}
		id, err := one(ctx, tx, scanOne[string], `UPDATE runs SET state = 'running', attempts = attempts + 1, record = $1, started = $2, ended = 0, result = '', reason = ''
			WHERE seq = (SELECT seq FROM runs WHERE state = 'queued' AND (due = created OR due <= $3) AND (home = '' OR home = $4) ORDER BY due, seq LIMIT 1 `+l.d.locked+`) RETURNING id`,
			record, now, now, l.owner)
		if err != nil {
			return err
		}
		if r, err = one(ctx, tx, scanRun, runsOf+`WHERE r.id = $1`, id); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO attempts (run, n, record, owner, beat, started, state) VALUES ($1, $2, $3, $4, $5, $6, 'running')`,
			r.ID, r.Attempts, record, l.owner, now, now)
		return err
	})
	return r, err
}

// Beat says that this owner lives, and goes on with these runs.
func (l *Ledger) Beat(ctx context.Context, runs []string) error {
	return l.change(ctx, "renew the lease", func(tx *sql.Tx) error {
		for _, run := range runs {
			_, err := tx.ExecContext(ctx, `UPDATE attempts SET beat = $1 WHERE run = $2 AND owner = $3 AND ended = 0`, ms(time.Now()), run, l.owner)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Cancels gives, by run, why those that this owner runs are to end.
func (l *Ledger) Cancels(ctx context.Context) (map[string]string, error) {
	all, err := rows(ctx, l.read, scanPair,
		`SELECT r.id, r.cancel FROM runs r JOIN attempts a ON a.run = r.id AND a.n = r.attempts WHERE r.state = 'running' AND r.cancel <> '' AND a.owner = $1`, l.owner)
	why := map[string]string{}
	for _, p := range all {
		why[p[0]] = p[1]
	}
	return why, err
}

// End is what came of an attempt.
type End struct {
	State   State
	Reason  string
	Again   time.Time       // of one that is Queued: when it may be tried again,
	Others  time.Time       // and the other runs of its source
	Plan    string          // digest
	Title   string          // of the commit: for a run that nobody told the title of
	Result  json.RawMessage // the record of the run
	Promote bool            // what passed is to be promoted where that goes by itself
	Says    string          // for the status: "3 images, 12 tests"; empty: the reason
}

// Finish ends a run and its newest attempt, and puts its status and its promotion
// on their lists: all of it or nothing. The error is an ErrTaken where the attempt
// is not this owner's any more.
func (l *Ledger) Finish(ctx context.Context, r Run, e End) error {
	return l.change(ctx, "end run "+r.ID, func(tx *sql.Tx) error {
		now := time.Now()
		if err := l.endAttempt(ctx, tx, r, e.State, e.Reason, now); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE runs SET state = $1, reason = $2, plan = $3, result = $4, ended = $5, cancel = '', title = CASE title WHEN '' THEN $6 ELSE title END WHERE id = $7`,
			string(e.State), e.Reason, e.Plan, string(e.Result), ms(now), e.Title, r.ID)
		if err != nil {
			return err
		}
		if e.Promote {
			_, err := tx.ExecContext(ctx, `INSERT INTO promotions (run, owner, state, due) VALUES ($1, $2, 'due', $3)
				ON CONFLICT (run) DO UPDATE SET state = 'due', owner = $4, due = $5, tries = 0`, r.ID, l.owner, ms(now), l.owner, ms(now))
			if err != nil {
				return err
			}
		}
		says := e.Says
		if says == "" {
			says = e.Reason
		}
		return say(ctx, tx, r.Repo, r.ID, r.Commit, e.State, says, now)
	})
}

func (l *Ledger) endAttempt(ctx context.Context, tx *sql.Tx, r Run, s State, reason string, now time.Time) error {
	n, err := affected(tx.ExecContext(ctx, `UPDATE attempts SET ended = $1, state = $2, reason = $3 WHERE run = $4 AND n = $5 AND owner = $6 AND ended = 0`,
		ms(now), string(s), reason, r.ID, r.Attempts, l.owner))
	if err == nil && n == 0 {
		err = ErrTaken
	}
	return err
}

// GiveBack lets a run that this owner had to stop wait for its next attempt, first in line.
func (l *Ledger) GiveBack(ctx context.Context, r Run, why string) error {
	return l.change(ctx, "give run "+r.ID+" back", func(tx *sql.Tx) error {
		if err := l.endAttempt(ctx, tx, r, Canceled, why, time.Now()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE runs SET state = 'queued', reason = $1 WHERE id = $2`, why, r.ID)
		return err
	})
}

// The states of attempts after which the run waits again.
const (
	lost   = "lost"    // its process has ended
	putOff = "put off" // it needs what did not answer
)

// PutOff lets a run wait until a time, because what it needs does not answer. The
// other runs of the same source, which may find the same, wait until a time too, and
// go behind all that wait by then.
func (l *Ledger) PutOff(ctx context.Context, r Run, why string, until, others time.Time) error {
	return l.change(ctx, "put run "+r.ID+" off", func(tx *sql.Tx) error {
		if err := l.endAttempt(ctx, tx, r, putOff, why, time.Now()); err != nil {
			return err
		}
		// One that is to end is taken at once, for that.
		_, err := tx.ExecContext(ctx, `UPDATE runs SET state = 'queued', reason = $1, due = CASE cancel WHEN '' THEN $2 ELSE due END WHERE id = $3`, why, ms(until), r.ID)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE runs SET due = $1 WHERE repo = $2 AND source = $3 AND state = 'queued' AND id <> $4 AND due < $5`, ms(others), r.Repo, r.Source, r.ID, ms(others))
		return err
	})
}

// Waited says how often a run has been put off since it last came to an end.
func (l *Ledger) Waited(ctx context.Context, run string) (int, error) {
	return one(ctx, l.read, scanOne[int], `SELECT count(*) FROM attempts WHERE run = $1 AND state = '`+putOff+`'
		AND n > (SELECT COALESCE(MAX(n), 0) FROM attempts WHERE run = $2 AND state IN ('passed', 'failed', 'skipped', 'error'))`, run, run)
}

// Recover takes up the runs whose process has ended: at a start all of this
// owner's (mine), and those of others whose lease is over. It says how many wait again.
func (l *Ledger) Recover(ctx context.Context, mine bool) (n int, err error) {
	err = l.change(ctx, "take up what was cut off", func(tx *sql.Tx) error {
		now := time.Now()
		dead, err := rows(ctx, tx, scanRun, runsOf+`JOIN attempts a ON a.run = r.id AND a.ended = 0 WHERE (a.owner = $1 AND $2 = 1) OR a.beat < $3`,
			l.owner, flag(mine), ms(now.Add(-Lease)))
		if err != nil {
			return err
		}
		for _, r := range dead {
			again, err := l.recoverOne(ctx, tx, r, now)
			if err != nil {
				return err
			}
			if again {
				n++
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE promotions SET state = 'due', due = $1 WHERE state = 'running' AND owner = $2 AND $3 = 1`, ms(now), l.owner, flag(mine))
		return err
	})
	return n, err
}

func (l *Ledger) recoverOne(ctx context.Context, tx *sql.Tx, r Run, now time.Time) (again bool, err error) {
	_, err = tx.ExecContext(ctx, `UPDATE attempts SET ended = $1, state = '`+lost+`', reason = $2 WHERE run = $3 AND ended = 0`, ms(now), "its server ended, or could not write down what came of it", r.ID)
	if err != nil {
		return false, err
	}
	losses, err := one(ctx, tx, scanOne[int], `SELECT count(*) FROM attempts WHERE run = $1 AND state = '`+lost+`'`, r.ID)
	if err != nil {
		return false, err
	}
	state, reason := Queued, ""
	switch {
	case r.Cancel != "":
		state, reason = Canceled, r.Cancel
	case losses >= maxLost:
		state, reason = Broken, fmt.Sprintf("the server ended %d times while it ran; see the server's log, then `slipway rerun %s`", losses, r.ID)
	}
	ended := int64(0)
	if state.Over() {
		ended = ms(now)
		if err := say(ctx, tx, r.Repo, r.ID, r.Commit, state, reason, now); err != nil {
			return false, err
		}
	}
	_, err = tx.ExecContext(ctx, `UPDATE runs SET state = $1, reason = $2, cancel = '', ended = $3 WHERE id = $4 AND state = 'running'`, string(state), reason, ended, r.ID)
	return state == Queued, err
}

// Cancel ends a run that waits, and has one that is on ended.
func (l *Ledger) Cancel(ctx context.Context, id, why string) error {
	return l.move(ctx, "cancel", id, func(ctx context.Context, tx *sql.Tx, r Run) error {
		if r.State == Running {
			_, err := tx.ExecContext(ctx, `UPDATE runs SET cancel = $1 WHERE id = $2`, why, id)
			return err
		}
		if r.State.Over() {
			return &Refusal{fmt.Sprintf("run %s has %s already", id, past(r.State))}
		}
		_, err := tx.ExecContext(ctx, `UPDATE runs SET state = 'canceled', reason = $1, ended = $2 WHERE id = $3`, why, ms(time.Now()), id)
		return errors.Join(err, say(ctx, tx, r.Repo, id, r.Commit, Canceled, why, time.Now()))
	})
}

// Rerun has a run that has ended tried again.
func (l *Ledger) Rerun(ctx context.Context, id string, again Again) error {
	return l.move(ctx, "rerun", id, func(ctx context.Context, tx *sql.Tx, r Run) error {
		if !r.State.Over() {
			return &Refusal{fmt.Sprintf("run %s is %s; `slipway cancel %s` first, or wait for its end", id, r.State, id)}
		}
		if !r.Trusted && r.Allowed == "" {
			return &Refusal{fmt.Sprintf("run %s is of a fork and nobody has allowed it; `slipway allow %s`", id, id)}
		}
		if again != (Again{}) {
			if again.Record = r.Record; r.Record == "" {
				return &Refusal{fmt.Sprintf("run %s has never been tried: there is nothing to take up; `slipway rerun %s`", id, id)}
			}
			// Only who made the earlier attempt has its record and its images.
			_, err := tx.ExecContext(ctx, `UPDATE runs SET home = (SELECT owner FROM attempts WHERE record = $1) WHERE id = $2`, r.Record, id)
			if err != nil {
				return err
			}
		}
		r.Asked.Again = again
		_, err := tx.ExecContext(ctx, `UPDATE runs SET state = 'queued', reason = '', ended = 0, asked = $1 WHERE id = $2`, r.Asked.text(), id)
		return errors.Join(err, say(ctx, tx, r.Repo, id, r.Commit, Queued, "", time.Now()))
	})
}

// Allow lets a fork's commit run, once it is that commit.
func (l *Ledger) Allow(ctx context.Context, id, commit, who string) error {
	return l.move(ctx, "allow", id, func(ctx context.Context, tx *sql.Tx, r Run) error {
		if r.State != Held {
			return &Refusal{fmt.Sprintf("run %s is not held, it is %s", id, r.State)}
		}
		if r.Commit != commit {
			return &Refusal{fmt.Sprintf("run %s is of commit %.12s, not %.12s; look at it again", id, r.Commit, commit)}
		}
		_, err := tx.ExecContext(ctx, `UPDATE runs SET state = 'queued', reason = '', allowed = $1 WHERE id = $2`, who, id)
		return errors.Join(err, say(ctx, tx, r.Repo, id, r.Commit, Queued, "", time.Now()))
	})
}

// Refusal says why a run cannot be brought to another state, or a repository be
// changed so.
type Refusal struct{ Why string }

func (r *Refusal) Error() string { return r.Why }

// move changes the state of a run as it is at that moment.
func (l *Ledger) move(ctx context.Context, what, id string, do func(context.Context, *sql.Tx, Run) error) error {
	return l.change(ctx, what+" run "+id, func(tx *sql.Tx) error {
		lock := ""
		if l.d.locked != "" {
			lock = " FOR UPDATE OF r"
		}
		r, err := one(ctx, tx, scanRun, runsOf+`WHERE r.id = $1`+lock, id)
		if err != nil {
			return err
		}
		return do(ctx, tx, r)
	})
}

func past(s State) string {
	switch s {
	case Skipped, Canceled:
		return "been " + string(s)
	case Broken:
		return "broken"
	}
	return string(s)
}
