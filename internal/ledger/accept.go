package ledger

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/pipeline"
)

// Delivery is one request of a forge.
type Delivery struct {
	Repo  string // ID
	ID    string // of the forge, the same when it delivers again
	Event string // in the forge's words
	At    time.Time
}

// Change is a thing that a delivery tells of and that a run is made for. Repo,
// Kind, Ref, Before and After say which run: the same from another delivery is the
// same run.
type Change struct {
	Run     string // ID for a run that it makes
	Kind    pipeline.EventKind
	Ref     string // refs/heads/…, refs/tags/…, refs/pull/7/head
	Base    string // target branch of a pull request
	Before  string // commit; empty where there is none
	After   string // commit
	Source  string // clone URL of a fork; empty: the repository itself
	Trusted bool
	Title   string // of the commit or pull request
	Author  string
	State   State  // Queued, Held or an end: what there is to do
	Reason  string // why it is not queued
	Newest  bool   // ends older runs of the same ref
	Allowed string // who lets it run although it is not trusted
	Asked   Asked
	Here    bool // only this ledger's owner has its files
}

// Accepted says what became of a delivery.
type Accepted struct {
	Duplicate bool     // its ID was known
	Runs      []string // that it made
	Again     []string // that had failed, and will be tried again
}

// maxBatch bounds how many deliveries share a transaction.
const maxBatch = 256

type arrival struct {
	ctx      context.Context //nolint:containedctx // of the waiting caller: whoever gave up is not written
	delivery Delivery
	changes  []Change
	accepted Accepted
	done     chan error
}

// Accept writes a delivery and its runs down. When it returns without an error
// that is on the disk, and the forge may be told so. A delivery that is known
// makes nothing twice; it gives a run that has not passed another attempt, for
// that is what people deliver again for.
//
// Deliveries that arrive together are committed together: a disk that takes 5 ms
// for each commit would carry no more than 200 a second otherwise.
func (l *Ledger) Accept(ctx context.Context, d Delivery, changes []Change) (Accepted, error) {
	a := &arrival{ctx: ctx, delivery: d, changes: changes, done: make(chan error, 1)}
	select {
	case l.arrivals <- a:
	case <-ctx.Done():
		return Accepted{}, context.Cause(ctx)
	case <-l.ending:
		return Accepted{}, errors.New("the ledger is being closed")
	}
	select {
	case err := <-a.done:
		return a.accepted, err
	case <-ctx.Done():
		return Accepted{}, context.Cause(ctx) // it may be written all the same: the next delivery finds that
	}
}

// commitArrivals writes what arrives until the ledger is closed.
func (l *Ledger) commitArrivals() {
	for {
		select {
		case first := <-l.arrivals:
			l.commitBatch(l.waiting(first))
		case <-l.ending:
			for {
				select {
				case a := <-l.arrivals:
					a.done <- errors.New("the ledger is being closed")
				default:
					return
				}
			}
		}
	}
}

// waiting is the first arrival with those that wait beside it.
func (l *Ledger) waiting(first *arrival) []*arrival {
	batch := []*arrival{first}
	for len(batch) < maxBatch {
		select {
		case a := <-l.arrivals:
			batch = append(batch, a)
		default:
			return batch
		}
	}
	return batch
}

// commitBatch writes a batch, and one by one where that fails: one that the
// database will not have must not cost others. A database that takes nothing at
// all is not asked again for each.
func (l *Ledger) commitBatch(batch []*arrival) {
	err := l.commit(batch)
	if err == nil || len(batch) == 1 || errors.Is(err, errShut) {
		for _, a := range batch {
			a.done <- err
		}
		return
	}
	for i, a := range batch {
		err := l.commit(batch[i : i+1])
		a.done <- err
		if errors.Is(err, errShut) && a.ctx.Err() == nil {
			for _, a := range batch[i+1:] {
				a.done <- err
			}
			return
		}
	}
}

func (l *Ledger) commit(batch []*arrival) error {
	ctx := context.Background() // a batch is of many; none of them may spoil it by going away
	if len(batch) == 1 {
		ctx = batch[0].ctx
	}
	return l.change(ctx, "write a delivery", func(tx *sql.Tx) error {
		waiting := batch
		if len(batch) > 1 {
			waiting = slices.DeleteFunc(slices.Clone(batch), func(a *arrival) bool { return a.ctx.Err() != nil })
		}
		return l.writeArrivals(ctx, tx, waiting)
	})
}

// writeArrivals writes a batch in few statements of many rows: to parse one costs
// SQLite more than to insert a row, and asking PostgreSQL costs a way there and back.
func (l *Ledger) writeArrivals(ctx context.Context, tx *sql.Tx, batch []*arrival) error {
	if err := l.writeDeliveries(ctx, tx, batch); err != nil {
		return err
	}
	made, err := l.writeRuns(ctx, tx, batch)
	if err != nil {
		return err
	}
	var first []any
	for _, a := range batch {
		for _, c := range a.changes {
			if _, ok := made[c.Run]; ok {
				first = append(first, a.delivery.Repo, c.Run, c.After, string(c.State), c.Reason, ms(a.delivery.At), ms(a.delivery.At))
			}
		}
	}
	_, err = insert(ctx, tx, l.d, scanPair, `INSERT INTO statuses (repo, run, sha, state, says, created, due)`, 7, first, "")
	if err != nil {
		return err
	}
	for _, a := range batch {
		for _, c := range a.changes {
			if err := a.settle(ctx, tx, c, made); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeDeliveries finds out which are new.
func (l *Ledger) writeDeliveries(ctx context.Context, tx *sql.Tx, batch []*arrival) error {
	var values []any
	for _, a := range batch {
		d := a.delivery
		values = append(values, d.Repo, d.ID, d.Event, ms(d.At))
	}
	found, err := insert(ctx, tx, l.d, scanPair, `INSERT INTO deliveries (repo, id, event, received)`, 4, values, `ON CONFLICT DO NOTHING RETURNING repo, id`)
	if err != nil {
		return err
	}
	fresh := map[[2]string]bool{}
	for _, f := range found {
		fresh[f] = true
	}
	for _, a := range batch {
		key := [2]string{a.delivery.Repo, a.delivery.ID}
		a.accepted = Accepted{Duplicate: !fresh[key]}
		delete(fresh, key) // the next in this batch with the same ID is known
		if !a.accepted.Duplicate {
			continue
		}
		if _, err := tx.ExecContext(ctx, `UPDATE deliveries SET again = again + 1 WHERE repo = $1 AND id = $2`, key[0], key[1]); err != nil {
			return err
		}
	}
	return nil
}

// writeRuns gives the numbers of the runs that are new, by ID.
func (l *Ledger) writeRuns(ctx context.Context, tx *sql.Tx, batch []*arrival) (map[string]int64, error) {
	var values []any
	for _, a := range batch {
		d := a.delivery
		for _, c := range a.changes {
			ended := int64(0)
			if c.State.Over() {
				ended = ms(d.At)
			}
			home := ""
			if c.Here {
				home = l.owner
			}
			values = append(values, c.Run, d.Repo, string(c.Kind), c.Ref, c.Base, c.Before, c.After, c.Source, flag(c.Trusted), c.Title, c.Author, d.ID, string(c.State), c.Reason, ms(d.At), ended,
				c.Allowed, c.Asked.text(), home, ms(d.At))
		}
	}
	type one struct {
		id  string
		seq int64
	}
	all, err := insert(ctx, tx, l.d, func(r row) (o one, err error) {
		err = r.Scan(&o.id, &o.seq)
		return o, err
	}, `INSERT INTO runs (id, repo, kind, ref, base, old, sha, source, trusted, title, author, delivery, state, reason, created, ended, allowed, asked, home, due)`, 20, values, `ON CONFLICT DO NOTHING RETURNING id, seq`)
	made := make(map[string]int64, len(all))
	for _, o := range all {
		made[o.id] = o.seq
	}
	return made, err
}

// maxRows bounds the rows of one statement: SQLite takes 32,766 values, PostgreSQL 65,535.
const maxRows = 1000

// insert inserts rows of so many columns each, and scans what the statement returns.
func insert[T any](ctx context.Context, tx *sql.Tx, d dialect, scan func(row) (T, error), into string, columns int, values []any, then string) (all []T, err error) {
	for some := range slices.Chunk(values, maxRows*columns) {
		var places strings.Builder
		for n := range some {
			between, place := ",", "?"
			if n%columns == 0 {
				between = "),("
			}
			if d.dollar {
				place = "$" + strconv.Itoa(n+1)
			}
			places.WriteString(between + place)
		}
		found, err := rows(ctx, tx, scan, into+" VALUES "+places.String()[2:]+") "+then, some...)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// settle does what a change asks of other runs, or of its own from before.
func (a *arrival) settle(ctx context.Context, tx *sql.Tx, c Change, made map[string]int64) error {
	seq, ok := made[c.Run]
	switch {
	case !ok && a.accepted.Duplicate:
		return a.again(ctx, tx, c)
	case !ok:
		return nil // another delivery told of it before
	}
	a.accepted.Runs = append(a.accepted.Runs, c.Run)
	if c.State.Over() {
		if err := notify(ctx, tx, c.Run, RunEnded, string(c.State), c.Reason, a.delivery.At); err != nil {
			return err
		}
	}
	if !c.Newest {
		return nil
	}
	return outrun(ctx, tx, a.delivery.Repo, c, seq)
}

// again queues a run once more that this very delivery made and that did not pass.
func (a *arrival) again(ctx context.Context, tx *sql.Tx, c Change) error {
	d := a.delivery
	ids, err := rows(ctx, tx, scanOne[string],
		`UPDATE runs SET state = 'queued', reason = '', cancel = '', ended = 0
		WHERE repo = $1 AND kind = $2 AND ref = $3 AND old = $4 AND sha = $5 AND delivery = $6 AND attempts > 0 AND state IN ('failed', 'error', 'canceled') RETURNING id`,
		d.Repo, string(c.Kind), c.Ref, c.Before, c.After, d.ID)
	if err != nil || len(ids) == 0 {
		return err
	}
	a.accepted.Again = append(a.accepted.Again, ids...)
	return say(ctx, tx, d.Repo, ids[0], c.After, Queued, "", d.At)
}

// outrun ends the older runs of a ref: those that wait at once, those that are on
// when whoever runs them hears of it.
func outrun(ctx context.Context, tx *sql.Tx, repo string, c Change, seq int64) error {
	why := "a newer one is there: run " + c.Run
	older, err := rows(ctx, tx, scanPair,
		`UPDATE runs SET state = 'canceled', reason = $1, ended = $2
		WHERE repo = $3 AND ref = $4 AND kind = $5 AND seq < $6 AND state IN ('queued', 'held') RETURNING id, sha`,
		why, ms(time.Now()), repo, c.Ref, string(c.Kind), seq)
	if err != nil {
		return err
	}
	for _, o := range older {
		if err := say(ctx, tx, repo, o[0], o[1], Canceled, why, time.Now()); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, `UPDATE runs SET cancel = $1 WHERE repo = $2 AND ref = $3 AND kind = $4 AND seq < $5 AND state = 'running' AND cancel = ''`,
		why, repo, c.Ref, string(c.Kind), seq)
	return err
}

func scanPair(r row) (p [2]string, err error) {
	err = r.Scan(&p[0], &p[1])
	return p, err
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
