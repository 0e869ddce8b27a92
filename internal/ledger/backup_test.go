package ledger_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"slipway/internal/ledger"
)

// TestBackup: a backup that is made while deliveries come in is a ledger of one
// moment, opens with its own key alone, and replaces nothing.
func TestBackup(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		for n := range 10 {
			d, changes := push(fmt.Sprint("before-", n), "main", n)
			_, err := l.Accept(t.Context(), d, changes)
			must(t, err)
		}
		file := filepath.Join(t.TempDir(), "backup")
		if strings.HasPrefix(database, "postgres") {
			if err := l.Backup(t.Context(), file); !errors.Is(err, ledger.ErrPostgres) {
				t.Errorf("a backup of PostgreSQL: %v", err)
			}
			if err := ledger.Restore(t.Context(), ledger.Options{Database: database}, file); !errors.Is(err, ledger.ErrPostgres) {
				t.Errorf("a restore to PostgreSQL: %v", err)
			}
			return
		}
		during := make(chan error, 1)
		go func() {
			var errs []error
			for n := range 50 {
				d, changes := push(fmt.Sprint("during-", n), "other", 100+n)
				_, err := l.Accept(t.Context(), d, changes)
				errs = append(errs, err)
			}
			during <- errors.Join(errs...)
		}()
		must(t, l.Backup(t.Context(), file))
		must(t, <-during)
		restored(t, l, file)
	})
}

func restored(t *testing.T, l *ledger.Ledger, file string) {
	t.Helper()
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v", info, err)
	}
	if err := l.Backup(t.Context(), file); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("over a backup: %v", err)
	}
	to := ledger.Options{Database: filepath.Join(t.TempDir(), "ledger.db"), Owner: "here", Key: ledger.Key{2}}
	if err := ledger.Restore(t.Context(), to, file); err == nil || !strings.Contains(err.Error(), "ledger.key") {
		t.Errorf("with another key: %v", err)
	}
	to.Key = ledger.Key{1}
	must(t, ledger.Restore(t.Context(), to, file))
	if err := ledger.Restore(t.Context(), to, file); err == nil || !strings.Contains(err.Error(), "there is a ledger") {
		t.Errorf("over a ledger: %v", err)
	}
	if files, _ := filepath.Glob(to.Database + "*"); len(files) != 1 {
		t.Errorf("left: %v", files)
	}
	again := open(t, to.Database, "here")
	want, err := l.Repos(t.Context())
	must(t, err)
	if got, err := again.Repos(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("repositories: %+v, %v", got, err)
	}
	was, err := l.Runs(t.Context(), ledger.Filter{Ref: "refs/heads/main"})
	must(t, err)
	if got, err := again.Runs(t.Context(), ledger.Filter{Ref: "refs/heads/main"}); err != nil || len(got) != 10 || !reflect.DeepEqual(got, was) {
		t.Errorf("runs: %+v, %v", got, err)
	}
}
