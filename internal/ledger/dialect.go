package ledger

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // PostgreSQL
	_ "modernc.org/sqlite"             // SQLite, without C
)

// dialect is all in which the two databases differ for us.
type dialect struct {
	serial string // column type of numbers that the database gives, in order
	locked string // behind a SELECT that takes a row others may be taking
	alone  string // before a migration: others wait
	dollar bool   // values are $1, $2, …; else ?, for SQLite seeks each number among all, and of many that takes long
}

var (
	sqlite   = dialect{serial: "integer primary key autoincrement"}
	postgres = dialect{
		serial: "bigint generated always as identity primary key",
		locked: "FOR UPDATE SKIP LOCKED",
		alone:  "SELECT pg_advisory_xact_lock(7130246)",
		dollar: true,
	}
)

// pooled bounds the connections to PostgreSQL, and SQLite's readers.
const pooled = 8

// busy is how long SQLite waits for another process that writes, in milliseconds.
const busy = 5000

// connect opens the two ends of a database.
func connect(database string) (write, read *sql.DB, d dialect, err error) {
	if strings.HasPrefix(database, "postgres://") || strings.HasPrefix(database, "postgresql://") {
		if write, err = sql.Open("pgx", database); err != nil {
			return nil, nil, d, fmt.Errorf("open the ledger: %w; write postgres://USER@HOST/DATABASE", withoutPassword(database, err))
		}
		write.SetMaxOpenConns(pooled)
		write.SetMaxIdleConns(pooled)
		return write, write, postgres, nil
	}
	if strings.Contains(database, "://") {
		return nil, nil, d, fmt.Errorf("the ledger %q: write a file name for SQLite, or postgres://USER@HOST/DATABASE", database)
	}
	if err := os.MkdirAll(filepath.Dir(database), 0o700); err != nil {
		return nil, nil, d, fmt.Errorf("make room for the ledger: %w", err)
	}
	// FULL: a commit is on the disk before a forge is told that its delivery is taken.
	common := fmt.Sprintf("file:%s?_pragma=busy_timeout(%d)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)",
		(&url.URL{Path: database}).EscapedPath(), busy)
	if write, err = sql.Open("sqlite", common+"&_txlock=immediate"); err == nil {
		read, err = sql.Open("sqlite", common+"&_pragma=query_only(1)")
	}
	if err != nil {
		return nil, nil, d, fmt.Errorf("open the ledger %s: %w", database, err)
	}
	write.SetMaxOpenConns(1)
	read.SetMaxOpenConns(pooled)
	read.SetMaxIdleConns(pooled)
	return write, read, sqlite, nil
}

// withoutPassword keeps the address, which may hold a password, out of a message.
func withoutPassword(address string, err error) error {
	return fmt.Errorf("%s", strings.ReplaceAll(err.Error(), address, "the address"))
}
