package ledger

import (
	"context"
	"database/sql"
	"time"
)

// Promotion is what is to be done, or was, after a run that passed.
type Promotion struct {
	Run    string `json:"-"`
	State  string `json:"state"` // due, running, done
	Tries  int    `json:"tries,omitempty"`
	Detail string `json:"detail,omitempty"` // how it went in each environment, or why it is put off
}

// The states of a promotion.
const (
	PromotionDue     = "due"
	PromotionRunning = "running"
	PromotionDone    = "done"
)

func (l *Ledger) promotion(ctx context.Context, run string) (Promotion, error) {
	return one(ctx, l.read, scanPromotion, `SELECT run, state, tries, detail FROM promotions WHERE run = $1`, run)
}

func scanPromotion(r row) (p Promotion, err error) {
	err = r.Scan(&p.Run, &p.State, &p.Tries, &p.Detail)
	return p, err
}

// TakePromotion gives the run whose promotion is due for longest, or an ErrNone.
// It stays this owner's until it is done or put off, and comes again where that
// could not be written down: an owner does one promotion at a time.
func (l *Ledger) TakePromotion(ctx context.Context, now time.Time) (r Run, p Promotion, err error) {
	err = l.change(ctx, "take a promotion", func(tx *sql.Tx) error {
		p, err = one(ctx, tx, scanPromotion, `UPDATE promotions SET state = 'running', owner = $1, tries = tries + 1
			WHERE run = (SELECT m.run FROM promotions m JOIN runs r ON r.id = m.run WHERE (m.state = 'running' OR m.state = 'due' AND m.due <= $2) AND m.owner = $3 ORDER BY r.seq LIMIT 1)
			RETURNING run, state, tries, detail`, l.owner, ms(now), l.owner)
		if err != nil {
			return err
		}
		r, err = one(ctx, tx, scanRun, runsOf+`WHERE r.id = $1`, p.Run)
		return err
	})
	return r, p, err
}

// EndPromotion says how a promotion went, or with a time when to try again.
func (l *Ledger) EndPromotion(ctx context.Context, p Promotion, detail string, again time.Time) error {
	state := PromotionDone
	if !again.IsZero() {
		state = PromotionDue
	}
	return l.change(ctx, "end a promotion", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE promotions SET state = $1, detail = $2, due = $3 WHERE run = $4`, state, detail, ms(again), p.Run)
		if err == nil && again.IsZero() {
			err = notify(ctx, tx, p.Run, PromotionEnded, state, detail, time.Now())
		}
		return err
	})
}
