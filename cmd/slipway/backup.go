//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"slipway/internal/ledger"
)

func backupCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write the server's ledger to a file, also while the server runs", Args: cobra.ExactArgs(1),
		Long: "Writes the server's ledger (repositories, runs, what is still to be told and promoted, tokens)\nas it is at one moment to a file, also while the server runs. Secrets in it stay sealed: keep\n" +
			"ROOT/server/ledger.key too, elsewhere. Images, logs, environments and keys are not in it.",
	}
	f.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.database == "" {
			if _, err := os.Stat(filepath.Join(g.root, "server", "ledger.db")); errors.Is(err, fs.ErrNotExist) {
				return usagef("%s has no ledger; give --root or --database", g.root)
			}
		}
		err := g.withLedger(cmd.Context(), f, func(l *ledger.Ledger) error { return l.Backup(cmd.Context(), args[0]) })
		if errors.Is(err, ledger.ErrPostgres) {
			return usageError{err}
		}
		if err == nil {
			fmt.Printf("the ledger is in %s; keep %s too, apart from it\n", args[0], filepath.Join(g.root, "server", "ledger.key"))
		}
		return err
	}
	return cmd
}

func restoreCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Bring the server's ledger back from a backup", Args: cobra.ExactArgs(1),
		Long: "Makes the server's ledger of a backup, where there is none. Put the ledger.key of that time into\nROOT/server first. Runs that had not ended are taken up at the server's next start.",
	}
	f.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return g.restore(cmd.Context(), f, args[0]) }
	return cmd
}

func (g *globals) restore(ctx context.Context, f ledgerFlags, file string) error {
	if _, err := os.Stat(file); err != nil {
		return usageError{err}
	}
	key := filepath.Join(g.root, "server", "ledger.key")
	if _, err := os.Stat(key); err != nil {
		return usagef("%w; put the ledger.key of that time there first: without it the backup's secrets cannot be opened", err)
	}
	o, err := g.ledgerOptions(f)
	if err != nil {
		return err
	}
	if err := ledger.Restore(ctx, o, file); err != nil {
		return usageError{err}
	}
	fmt.Printf("%s is restored; start the server\n", o.Database)
	return nil
}
