package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// KnownFor is how long the IDs of deliveries are kept. Who may deliver again does so
// within a week: github.com lets people for three days, GitHub Enterprise and Gitea (as it
// is set up) for seven, and senders that try again by themselves do for hours. A run stays at least as long: without it a delivery that is known would make it anew.
const KnownFor = 90 * 24 * time.Hour

// ForgetDeliveries removes the IDs of deliveries from before a time; what they
// made stays.
func (l *Ledger) ForgetDeliveries(ctx context.Context, before time.Time) error {
	return l.change(ctx, "forget old deliveries", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM deliveries WHERE received < $1`, ms(before))
		return err
	})
}

// OldRun is one whose rows may go, as far as the ledger knows.
type OldRun struct {
	Seq    int64
	ID     string
	Result json.RawMessage // of its newest attempt
}

// isOld: it has ended before a time, or been held since; take it with the time.
const isOld = `state NOT IN ('queued', 'running') AND CASE state WHEN 'held' THEN created ELSE ended END < `

// OldRuns lists up to limit runs that are old and behind a Seq, in its order. Those are
// not among them that a promotion is still due of, that are the last of a schedule, and
// that another owner has tried who was there after that time: what they left he knows.
func (l *Ledger) OldRuns(ctx context.Context, before time.Time, behind int64, limit int) ([]OldRun, error) {
	return rows(ctx, l.read, func(r row) (o OldRun, err error) {
		var result string
		err = r.Scan(&o.Seq, &o.ID, &result)
		o.Result = json.RawMessage(result)
		return o, err
	}, `SELECT seq, id, result FROM runs WHERE seq > $1 AND `+isOld+`$2
		AND NOT EXISTS (SELECT 1 FROM promotions m WHERE m.run = runs.id AND m.state <> 'done') AND NOT EXISTS (SELECT 1 FROM schedules s WHERE s.run = runs.id)
		AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.run = runs.id AND a.owner IN (SELECT b.owner FROM attempts b WHERE b.owner <> $3 AND b.started >= $4))
		ORDER BY seq LIMIT $5`, behind, ms(before), l.owner, ms(before), limit)
}

// ForgetRuns removes runs, by their Seq, with their attempts, and what was said of
// them: those that are old still.
func (l *Ledger) ForgetRuns(ctx context.Context, all []int64, before time.Time) (n int, err error) {
	if len(all) == 0 {
		return 0, nil
	}
	list := make([]string, len(all))
	for i, seq := range all {
		list[i] = strconv.FormatInt(seq, 10)
	}
	err = l.change(ctx, "forget old runs", func(tx *sql.Tx) error {
		gone, err := rows(ctx, tx, scanOne[string], `DELETE FROM runs WHERE seq IN (`+strings.Join(list, ",")+`) AND `+isOld+`$1 RETURNING id`, ms(before))
		if err != nil {
			return err
		}
		for _, id := range gone {
			if _, err := tx.ExecContext(ctx, `DELETE FROM statuses WHERE run = $1`, id); err != nil {
				return err
			}
		}
		n = len(gone)
		return nil
	})
	return n, err
}
