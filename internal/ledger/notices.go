package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The events that a receiver may hear of.
const (
	RunEnded       = "run.ended"
	PromotionEnded = "promotion.ended"
)

// Receiver is told by webhooks how runs and promotions end.
type Receiver struct {
	ID      string     `json:"id"`
	URL     string     `json:"url"`
	Repo    string     `json:"repo,omitempty"`   // name of the only one it hears of
	Events  []string   `json:"events,omitempty"` // none: all
	Sent    *time.Time `json:"sent,omitempty"`   // when it last took one
	Problem string     `json:"problem,omitempty"`
	Waiting int        `json:"waiting"` // webhooks that it has not got yet
	Created time.Time  `json:"created"`

	Secret []byte `json:"-"` // that webhooks to it are signed with
}

// Notice is a webhook that a receiver is to get.
type Notice struct {
	Seq     int64
	To      Receiver // ID, URL and Secret
	Run     Run
	Event   string
	State   string // of the run or the promotion, as it was then
	Says    string
	Created time.Time
	Tries   int
}

// AddReceiver keeps a receiver.
func (l *Ledger) AddReceiver(ctx context.Context, r Receiver) error {
	for _, e := range r.Events {
		if e != RunEnded && e != PromotionEnded {
			return fmt.Errorf("no event is called %q; use %s or %s", e, RunEnded, PromotionEnded)
		}
	}
	return l.change(ctx, "add a receiver", func(tx *sql.Tx) error {
		repo := ""
		if r.Repo != "" {
			var err error
			if repo, err = one(ctx, tx, scanOne[string], `SELECT id FROM repos WHERE name = $1`, r.Repo); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO receivers (id, url, repo, events, secret, created) VALUES ($1, $2, $3, $4, $5, $6)`,
			r.ID, r.URL, repo, strings.Join(r.Events, ","), l.seal.seal("receiver "+r.ID, r.Secret), ms(r.Created))
		return err
	})
}

// Receivers lists the receivers, the oldest first.
func (l *Ledger) Receivers(ctx context.Context) ([]Receiver, error) {
	return rows(ctx, l.read, func(r row) (out Receiver, err error) {
		var events string
		var sent, created int64
		err = r.Scan(&out.ID, &out.URL, &out.Repo, &events, &sent, &out.Problem, &out.Waiting, &created)
		out.Events = slices.DeleteFunc(strings.Split(events, ","), func(s string) bool { return s == "" })
		out.Sent, out.Created = maybe(sent), at(created)
		return out, err
	}, `SELECT v.id, v.url, COALESCE(p.name, ''), v.events, v.sent, v.problem, (SELECT count(*) FROM notices n WHERE n.receiver = v.id), v.created
		FROM receivers v LEFT JOIN repos p ON p.id = v.repo ORDER BY v.created, v.id`)
}

// DropReceiver removes a receiver, by its ID or URL, with what it has not got yet.
func (l *Ledger) DropReceiver(ctx context.Context, id string) error {
	return l.change(ctx, "remove a receiver", func(tx *sql.Tx) error {
		n, err := affected(tx.ExecContext(ctx, `DELETE FROM receivers WHERE id = $1 OR url = $2`, id, id))
		if err == nil && n == 0 {
			err = ErrNone
		}
		return err
	})
}

// notify puts webhooks on the list, in the transaction that makes true what they tell.
func notify(ctx context.Context, tx *sql.Tx, run, event, state, says string, now time.Time) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO notices (receiver, run, event, state, says, created, due)
		SELECT v.id, r.id, $1, $2, $3, $4, $5 FROM receivers v JOIN runs r ON r.id = $6
		WHERE (v.repo = '' OR v.repo = r.repo) AND (v.events = '' OR v.events LIKE $7)`,
		event, state, says, ms(now), ms(now), run, "%"+event+"%")
	return err
}

// claim is how long a notice that somebody sends is left alone by others.
const claim = time.Minute

// TakeNotices gives the webhooks that are due, the oldest first, to whoever asks,
// for a minute: who is killed meanwhile has them sent again.
func (l *Ledger) TakeNotices(ctx context.Context, now time.Time, limit int) (out []Notice, err error) {
	err = l.change(ctx, "take webhooks to send", func(tx *sql.Tx) error {
		type taken struct {
			Notice
			run    string
			sealed []byte
		}
		all, err := rows(ctx, tx, func(r row) (t taken, err error) {
			var created int64
			err = r.Scan(&t.Seq, &t.To.ID, &t.run, &t.Event, &t.State, &t.Says, &created, &t.Tries)
			t.Created = at(created)
			return t, err
		}, `UPDATE notices SET due = $1 WHERE seq IN (SELECT seq FROM notices WHERE due <= $2 ORDER BY due, seq LIMIT $3 `+l.d.locked+`)
			RETURNING seq, receiver, run, event, state, says, created, tries`, ms(now.Add(claim)), ms(now), limit)
		if err != nil {
			return err
		}
		out = nil
		for _, t := range all {
			if t.Run, err = one(ctx, tx, scanRun, runsOf+`WHERE r.id = $1`, t.run); err != nil {
				return err
			}
			err := tx.QueryRowContext(ctx, `SELECT url, secret FROM receivers WHERE id = $1`, t.To.ID).Scan(&t.To.URL, &t.sealed)
			if err == nil {
				t.To.Secret, err = l.seal.open("receiver "+t.To.ID, t.sealed)
			}
			if err != nil {
				return err
			}
			out = append(out, t.Notice)
		}
		return nil
	})
	slices.SortFunc(out, func(a, b Notice) int { return cmp.Compare(a.Seq, b.Seq) })
	return out, err
}

// Noticed takes a webhook from the list: the receiver has it, or problem says why it
// never will.
func (l *Ledger) Noticed(ctx context.Context, n Notice, problem string) error {
	return l.change(ctx, "note a webhook", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM notices WHERE seq = $1`, n.Seq)
		if problem == "" {
			_, e := tx.ExecContext(ctx, `UPDATE receivers SET sent = $1, problem = '' WHERE id = $2`, ms(time.Now()), n.To.ID)
			return errors.Join(err, e)
		}
		_, e := tx.ExecContext(ctx, `UPDATE receivers SET problem = $1 WHERE id = $2`, problem, n.To.ID)
		return errors.Join(err, e)
	})
}

// NoticeLater puts a webhook off, and with it all that wait for the same receiver:
// one that is away must not take the turns of others.
func (l *Ledger) NoticeLater(ctx context.Context, n Notice, due time.Time, problem string) error {
	return l.change(ctx, "put a webhook off", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE notices SET due = $1, tries = tries + CASE WHEN seq = $2 THEN 1 ELSE 0 END WHERE receiver = $3 AND (seq = $4 OR due < $5)`,
			ms(due), n.Seq, n.To.ID, n.Seq, ms(due))
		_, e := tx.ExecContext(ctx, `UPDATE receivers SET problem = $1 WHERE id = $2`, problem, n.To.ID)
		return errors.Join(err, e)
	})
}
