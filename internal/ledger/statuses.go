package ledger

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"time"

	"slipway/pipeline"
)

// Status is what a forge is to be told of a commit.
type Status struct {
	Seq   int64
	Repo  string // ID
	Run   string
	Kind  pipeline.EventKind // of the run
	SHA   string
	State State // of the run
	Says  string
	Tries int
}

// say puts a status on the list, in the transaction that makes it so. What was to
// be said of the run before and was not yet, is not said any more.
func say(ctx context.Context, tx *sql.Tx, repo, run, sha string, s State, says string, now time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE statuses SET done = $1, problem = 'outdated' WHERE run = $2 AND done = 0`, ms(now), run)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO statuses (repo, run, sha, state, says, created, due) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		repo, run, sha, string(s), says, ms(now), ms(now))
	if err == nil && s.Over() {
		err = notify(ctx, tx, run, RunEnded, string(s), says, now)
	}
	return err
}

// DueStatuses lists what is to be sent now, the oldest first.
func (l *Ledger) DueStatuses(ctx context.Context, now time.Time, limit int) ([]Status, error) {
	return rows(ctx, l.read, func(r row) (s Status, err error) {
		err = r.Scan(&s.Seq, &s.Repo, &s.Run, &s.Kind, &s.SHA, &s.State, &s.Says, &s.Tries)
		return s, err
	}, `SELECT s.seq, s.repo, s.run, r.kind, s.sha, s.state, s.says, s.tries FROM statuses s JOIN runs r ON r.id = s.run WHERE s.done = 0 AND s.due <= $1 ORDER BY s.seq LIMIT $2`, ms(now), limit)
}

// Sent takes a status from the list: the forge has it, or problem says why it never will.
func (l *Ledger) Sent(ctx context.Context, s Status, problem string) error {
	return l.change(ctx, "note a status", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE statuses SET done = $1, problem = $2, tries = tries + 1 WHERE seq = $3`, ms(time.Now()), problem, s.Seq)
		return err
	})
}

// Unsaid takes statuses from the list that nobody is to be told.
func (l *Ledger) Unsaid(ctx context.Context, all []Status, why string) error {
	if len(all) == 0 {
		return nil
	}
	return l.change(ctx, "note statuses", func(tx *sql.Tx) error {
		list := make([]string, len(all))
		for i, s := range all {
			list[i] = strconv.FormatInt(s.Seq, 10)
		}
		_, err := tx.ExecContext(ctx, `UPDATE statuses SET done = $1, problem = $2 WHERE seq IN (`+strings.Join(list, ",")+`)`, ms(time.Now()), why)
		return err
	})
}

// SendLater puts a status off.
func (l *Ledger) SendLater(ctx context.Context, s Status, due time.Time, problem string) error {
	return l.change(ctx, "put a status off", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE statuses SET due = $1, problem = $2, tries = tries + 1 WHERE seq = $3 AND done = 0`, ms(due), problem, s.Seq)
		return err
	})
}
