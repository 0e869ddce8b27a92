package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// ErrPostgres says that the ledger's database has its own tools for this.
var ErrPostgres = errors.New("the ledger is in PostgreSQL: back it up with pg_dump, and bring it back with pg_restore or psql, while no server runs")

// Backup writes the ledger as it is at one moment to a file, which must not be
// there. A server may go on writing meanwhile. The file holds secrets sealed: the
// key is not in it. The error is an ErrPostgres for a ledger that is no file.
func (l *Ledger) Backup(ctx context.Context, file string) (err error) {
	if l.d != sqlite {
		return ErrPostgres
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; give the backup another name", err)
	}
	if err != nil {
		return fmt.Errorf("back the ledger up: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(fmt.Errorf("back the ledger up: %w", err), os.Remove(file))
		}
	}()
	if _, err := l.write.ExecContext(ctx, `VACUUM INTO $1`, file); err != nil { // it takes an empty file
		return err
	}
	return f.Sync()
}

// Restore makes the ledger that o names of a backup. There must be none yet, and
// o.Key must be the one that the backup's secrets are sealed with.
func Restore(ctx context.Context, o Options, file string) (err error) {
	if strings.Contains(o.Database, "://") {
		return ErrPostgres
	}
	for _, end := range []string{"", "-wal"} {
		if _, err := os.Lstat(o.Database + end); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, fmt.Errorf("there is a ledger: %s; stop the server and move its files away first", o.Database+end))
		}
	}
	aside := o
	aside.Database += ".restored"
	if err := copied(file, aside.Database); err != nil {
		return fmt.Errorf("restore the ledger: %w", err)
	}
	defer func() { err = errors.Join(err, gone(aside.Database, "", "-wal", "-shm")) }()
	if err := whole(ctx, aside); err != nil {
		return fmt.Errorf("restore the ledger from %s: %w", file, err)
	}
	return os.Rename(aside.Database, o.Database)
}

// whole says whether a ledger can be read to its end, and its secrets opened.
func whole(ctx context.Context, o Options) (err error) {
	l, err := Open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	said, err := one(ctx, l.write, scanOne[string], `PRAGMA integrity_check`)
	if err == nil && said != "ok" {
		err = fmt.Errorf("the file is damaged: %s; take another backup", said)
	}
	if err != nil {
		return err
	}
	if _, err = l.Repos(ctx); err != nil {
		err = fmt.Errorf("%w; put the ledger.key of that time beside the ledger first", err)
	}
	return err
}

// copied copies a file to one that only its owner reads, and to the disk.
func copied(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Sync()
}

func gone(file string, ends ...string) error {
	var errs []error
	for _, end := range ends {
		if err := os.Remove(file + end); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
