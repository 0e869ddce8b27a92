//go:build linux && !client

package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/ledger"
)

func tokensCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "tokens", Short: "Make, list and remove the tokens that let people and programs into the server", RunE: needsSubcommand}
	cmd.AddCommand(addTokenCommand(g), listTokensCommand(g), dropTokenCommand(g))
	return cmd
}

func addTokenCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	var role string
	var valid time.Duration
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a token and print it, this once", Args: cobra.ExactArgs(1),
		Long: "Makes a token and prints it. Roles, each with what those before it may: viewer (look),\ndeveloper (cancel, rerun), sysadmin (allow forks), admin (audit, repositories).",
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&role, "role", string(ledger.Viewer), "viewer, developer, sysadmin or admin")
	cmd.Flags().DurationVar(&valid, "valid-for", 0, "how long it lets in, e.g. 720h (default: without an end)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var expires time.Time
		if valid > 0 {
			expires = time.Now().Add(valid)
		}
		return g.withLedger(cmd.Context(), f, func(l *ledger.Ledger) error {
			secret, t, err := l.AddToken(cmd.Context(), args[0], ledger.Role(role), expires)
			if err != nil {
				return usageError{err}
			}
			if err := l.Note(cmd.Context(), ledger.Deed{At: time.Now(), Actor: actorHere(), Action: "tokens add", Object: t.Name, Detail: role}); err != nil {
				return err
			}
			if g.json {
				return printJSON(os.Stdout, map[string]any{"token": t, "secret": secret})
			}
			fmt.Println(secret)
			return nil
		})
	}
	return cmd
}

func listTokensCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List the tokens, without their secrets", Args: cobra.NoArgs}
	f.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return g.withLedger(cmd.Context(), f, func(l *ledger.Ledger) error {
			all, err := l.Tokens(cmd.Context())
			if err != nil || g.json {
				return errors.Join(err, printJSON(os.Stdout, all))
			}
			t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NAME\tROLE\tMADE\tENDS")
			for _, k := range all {
				ends := "never"
				if k.Expires != nil {
					ends = k.Expires.Local().Format(time.DateTime)
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", k.Name, k.Role, k.Created.Local().Format(time.DateTime), ends)
			}
			return t.Flush()
		})
	}
	return cmd
}

func dropTokenCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{Use: "rm NAME", Short: "Let the holder of a token in no longer", Args: cobra.ExactArgs(1)}
	f.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.withLedger(cmd.Context(), f, func(l *ledger.Ledger) error {
			err := l.DropToken(cmd.Context(), args[0])
			if errors.Is(err, ledger.ErrNone) {
				return usagef("no token is called %s; `slipway tokens ls` lists them", args[0])
			}
			return errors.Join(err, l.Note(cmd.Context(), ledger.Deed{At: time.Now(), Actor: actorHere(), Action: "tokens rm", Object: args[0]}))
		})
	}
	return cmd
}
