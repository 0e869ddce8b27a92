//go:build linux && !client

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"slipway/promote"
)

func auditCommand(g *globals) *cobra.Command {
	var f environmentFlags
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Export and check the log of all that this root was asked to promote",
		Args:  cobra.NoArgs,
		RunE:  needsSubcommand,
	}
	export := &cobra.Command{
		Use: "export", Short: "Print the log: one JSON document a line, each with the digest of the line before", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return g.withPromoter(cmd.Context(), f, func(p *promote.Promoter) error { return p.Audit().Export(os.Stdout) })
		},
	}
	verify := &cobra.Command{
		Use: "verify [FILE]", Short: "Check that no line was changed, added or taken out, also against what the environments' commits say", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.withPromoter(cmd.Context(), f, func(p *promote.Promoter) error {
				a, err := p.VerifyAudit(cmd.Context(), first(args))
				if err != nil {
					fmt.Fprintln(os.Stderr, "slipway: audit:", err)
					return exitError(exitFailed)
				}
				if g.json {
					return printJSON(os.Stdout, a)
				}
				fmt.Printf("log %s: %d lines hold together; commits speak of %d of them, and they are as they say\n", a.Log, a.Lines, a.Pinned)
				return nil
			})
		},
	}
	for _, c := range []*cobra.Command{export, verify} {
		f.register(c.Flags())
	}
	cmd.AddCommand(export, verify)
	return cmd
}
