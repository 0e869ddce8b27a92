package ledger

import (
	"context"
	"strconv"
)

// Limit lets SQLite's file grow no further, as on a full disk, or lets it grow again.
func (l *Ledger) Limit(ctx context.Context, on bool) error {
	pages := 1 << 30
	if on {
		n, err := one(ctx, l.write, scanOne[int], `PRAGMA page_count`)
		if err != nil {
			return err
		}
		pages = n + 20
	}
	_, err := rows(ctx, l.write, scanOne[int], `PRAGMA max_page_count = `+strconv.Itoa(pages))
	return err
}
