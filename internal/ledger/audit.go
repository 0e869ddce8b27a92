package ledger

import (
	"context"
	"database/sql"
	"time"
)

// Deed is something that somebody did or tried.
type Deed struct {
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Action string    `json:"action"`
	Object string    `json:"object,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

// Note writes a deed down.
func (l *Ledger) Note(ctx context.Context, d Deed) error {
	return l.change(ctx, "note a deed", func(tx *sql.Tx) error { return note(ctx, tx, d) })
}

func note(ctx context.Context, tx *sql.Tx, d Deed) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO audit (at, actor, action, object, detail) VALUES ($1, $2, $3, $4, $5)`, ms(d.At), d.Actor, d.Action, d.Object, d.Detail)
	return err
}

// Deeds lists the newest deeds, the newest first.
func (l *Ledger) Deeds(ctx context.Context, limit int) ([]Deed, error) {
	return rows(ctx, l.read, func(r row) (d Deed, err error) {
		var when int64
		err = r.Scan(&when, &d.Actor, &d.Action, &d.Object, &d.Detail)
		d.At = at(when)
		return d, err
	}, `SELECT at, actor, action, object, detail FROM audit ORDER BY seq DESC LIMIT $1`, limit)
}
