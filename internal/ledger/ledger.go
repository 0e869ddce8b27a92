// Package ledger keeps what a server has promised: the repositories it listens
// to, the deliveries it has accepted, the runs that come of them and every
// attempt at one, what is still to be said to forges and to be promoted, who may
// ask for what, and who did. It is the one room of SQL: SQLite in a file of the
// root, or PostgreSQL where several machines share the work; schema, statements
// and tests are the same.
//
// It refuses to know what a run does, to send anything, and to be evidence: a
// promotion asks the proofs, never the ledger, so that a lost or forged ledger
// cannot bring anything into an environment. Secrets of others lie in it sealed,
// and tokens as hashes.
package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Options say which database, and what seals the secrets in it.
type Options struct {
	// Database is a file for SQLite, or postgres://… for PostgreSQL.
	Database string
	// Key seals secrets; whoever opens the same database elsewhere needs the same.
	Key Key
	// Owner names whoever takes runs: of two open ledgers with the same owner only
	// one may do that. A server's root has one owner, and its lock sees to the rest.
	Owner string
}

// Ledger is an open database. It may be used by many goroutines.
type Ledger struct {
	write *sql.DB // SQLite: one connection, so that nobody waits for a lock he himself holds up
	read  *sql.DB // PostgreSQL: the same
	d     dialect
	seal  sealer
	owner string

	arrivals chan *arrival
	ending   chan struct{}
	batches  sync.WaitGroup
}

// ErrNone says that there is no such repository, run or token.
var ErrNone = errors.New("not in the ledger")

// ErrTaken says that an attempt is no longer this owner's: its lease was over and
// somebody else has the run, or it was ended. What came of it does not count.
var ErrTaken = errors.New("this attempt is not held any more")

// Open opens the database, making it and bringing its schema up to date where needed.
func Open(ctx context.Context, o Options) (_ *Ledger, err error) {
	l := &Ledger{owner: o.Owner, arrivals: make(chan *arrival, 1024), ending: make(chan struct{})}
	if l.seal, err = newSealer(o.Key); err != nil {
		return nil, err
	}
	if l.write, l.read, l.d, err = connect(o.Database); err != nil {
		return nil, err
	}
	if err := l.migrate(ctx); err != nil {
		return nil, errors.Join(err, l.closeDatabases())
	}
	l.batches.Go(l.commitArrivals)
	return l, nil
}

// Close ends what is under way, and closes the database.
func (l *Ledger) Close() error {
	close(l.ending)
	l.batches.Wait()
	return l.closeDatabases()
}

func (l *Ledger) closeDatabases() error {
	err := l.write.Close()
	if l.read != l.write {
		err = errors.Join(err, l.read.Close())
	}
	return err
}

// Ping says whether the database can be read and written: what /readyz asks.
func (l *Ledger) Ping(ctx context.Context) error {
	return l.change(ctx, "write", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE schema_version SET pinged = $1`, ms(time.Now()))
		return err
	})
}

// errShut says that the database cannot be written to at all: it is locked, or away.
var errShut = errors.New("no transaction can begin")

// change does something in one transaction; when it returns nil, that is on the disk.
func (l *Ledger) change(ctx context.Context, what string, do func(*sql.Tx) error) error {
	tx, err := l.write.BeginTx(ctx, nil)
	if err != nil {
		return told(what, fmt.Errorf("%w: %w", errShut, err))
	}
	if err = do(tx); err == nil {
		err = tx.Commit()
	} else {
		err = errors.Join(err, rolledBack(tx))
	}
	return told(what, err)
}

// told says what failed. A name that is not there and a refusal need no further words.
func told(what string, err error) error {
	var refused *Refusal
	if err == nil || errors.Is(err, ErrNone) || errors.Is(err, ErrTaken) || errors.As(err, &refused) {
		return err
	}
	return fmt.Errorf("%s in the ledger: %w", what, err)
}

// rolledBack gives up a transaction; the database may have done that by itself.
func rolledBack(tx *sql.Tx) error {
	if err := tx.Rollback(); !errors.Is(err, sql.ErrTxDone) {
		return err
	}
	return nil
}

// rows gives each row of a query to scan.
func rows[T any](ctx context.Context, db querier, scan func(row) (T, error), query string, args ...any) (all []T, err error) {
	found, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, told("read", err)
	}
	defer func() { err = errors.Join(err, found.Close()) }()
	for found.Next() {
		one, err := scan(found)
		if err != nil {
			return nil, told("read", err)
		}
		all = append(all, one)
	}
	return all, told("read", found.Err())
}

// one gives the only row of a query; the error is an ErrNone where there is none.
func one[T any](ctx context.Context, db querier, scan func(row) (T, error), query string, args ...any) (T, error) {
	all, err := rows(ctx, db, scan, query, args...)
	if err == nil && len(all) == 0 {
		err = ErrNone
	}
	if err != nil {
		var zero T
		return zero, err
	}
	return all[0], nil
}

// row is what can be scanned.
type row interface{ Scan(into ...any) error }

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Times are milliseconds since 1970 in the database; 0 is no time.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
