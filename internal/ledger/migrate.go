package ledger

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema to this version's. Each step is a file; the number of
// those that were taken stands in the database. A database that is newer than
// this slipway is left alone.
func (l *Ledger) migrate(ctx context.Context) error {
	steps, err := fs.Glob(migrations, "migrations/*.sql") // sorted
	if err != nil {
		return err
	}
	err = l.change(ctx, "prepare the schema", func(tx *sql.Tx) error {
		if l.d.alone != "" {
			if _, err := tx.ExecContext(ctx, l.d.alone); err != nil {
				return err
			}
		}
		have, err := version(ctx, tx)
		if err != nil {
			return err
		}
		if have > len(steps) {
			return fmt.Errorf("it was made by a newer slipway (schema %d, this one knows %d); use that, or another database", have, len(steps))
		}
		for _, name := range steps[have:] {
			if err := l.step(ctx, tx, name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE schema_version SET version = $1`, len(steps))
		return err
	})
	return err
}

func version(ctx context.Context, tx *sql.Tx) (int, error) {
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (version integer NOT NULL, pinged bigint NOT NULL)`); err != nil {
		return 0, err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO schema_version (version, pinged) SELECT 0, 0 WHERE NOT EXISTS (SELECT 1 FROM schema_version)`)
	if err != nil {
		return 0, err
	}
	return one(ctx, tx, scanOne[int], `SELECT version FROM schema_version`)
}

func (l *Ledger) step(ctx context.Context, tx *sql.Tx, name string) error {
	text, err := migrations.ReadFile(name)
	if err != nil {
		return err
	}
	for statement := range strings.SplitSeq(strings.ReplaceAll(string(text), "{{serial}}", l.d.serial), ";") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// scanOne scans a row of one column.
func scanOne[T any](r row) (v T, err error) {
	err = r.Scan(&v)
	return v, err
}
