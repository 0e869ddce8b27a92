package ledger_test

import (
	"errors"
	"os"
	"testing"

	"slipway/internal/need"
)

var server need.Postgres

func TestMain(m *testing.M) {
	code := need.Run(m)
	if err := server.Stop(); err != nil {
		code = max(code, 1)
		_, _ = os.Stderr.WriteString(errors.Join(errors.New("stop PostgreSQL"), err).Error() + "\n")
	}
	os.Exit(code)
}
