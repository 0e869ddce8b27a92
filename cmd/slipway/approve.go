package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"slipway/internal/attest"
	"slipway/internal/server"
	"slipway/promote"
)

type approveFlags struct {
	environmentFlags
	serverFlags
	to, from, key, promotion, reason string
	breakGlass                       []string
}

func approveCommand(g *globals) *cobra.Command {
	var f approveFlags
	cmd := &cobra.Command{
		Use:   "approve IMAGE... --to ENVIRONMENT --key FILE",
		Short: "Sign with your own key that an image may go to an environment",
		Long:  "Signs an approval and attaches it to the image. The environment's file lists under\ngates.approvals whose approval counts. With --break-glass it says instead that gates are\nto be set aside for one promotion: `slipway promote --break-glass WHY` prints which.\n\n" + exitHelp,
		Args:  cobra.MinimumNArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return g.approve(cmd.Context(), args, f) },
	}
	f.environmentFlags.register(cmd.Flags())
	f.serverFlags.register(cmd.Flags())
	cmd.Flags().StringVar(&f.to, "to", "", "the environment (required)")
	cmd.Flags().StringVar(&f.from, "from", "", "take the digests that this environment runs")
	cmd.Flags().StringVar(&f.key, "key", "", "file of your private key (required; `slipway keys generate --out FILE` makes one)")
	cmd.Flags().StringVar(&f.promotion, "promotion", "", "only for this promotion")
	cmd.Flags().StringVar(&f.reason, "reason", "", "a sentence that is signed along")
	cmd.Flags().StringSliceVar(&f.breakGlass, "break-glass", nil, "gates to set aside: approvals, from, soak, freeze, tests")
	return cmd
}

func (g *globals) approve(ctx context.Context, args []string, f approveFlags) error {
	images, err := wanted(args, f.from)
	switch {
	case err != nil:
		return err
	case f.to == "":
		return usagef("for where? name the environment with --to")
	case f.key == "":
		return usagef("whose approval? give your private key with --key FILE")
	case len(f.breakGlass) > 0 && (f.promotion == "" || f.reason == ""):
		return usagef("--break-glass needs --promotion, the one it is for, and --reason")
	}
	by, err := attest.ReadSigner(f.key, f.key+".pub")
	if err != nil {
		return usageError{err}
	}
	assent := promote.Assent{Comment: f.reason, BreakGlass: f.breakGlass, Promotion: f.promotion}
	if f.server != "" {
		signed, err := g.approveRemotely(ctx, f.serverFlags, server.Wish{Environment: f.to, Images: images, From: f.from}, assent, by)
		if err != nil {
			return err
		}
		return g.tellApproved(signed, f)
	}
	return g.withPromoter(ctx, f.environmentFlags, func(p *promote.Promoter) error {
		plan, err := p.Plan(ctx, promote.Request{Environment: f.to, Images: images, From: f.from, Actor: f.person().String()})
		if err != nil {
			return err
		}
		signed, err := p.Approve(ctx, plan, assent, by)
		if err != nil {
			return err
		}
		return g.tellApproved(signed, f)
	})
}

func (g *globals) tellApproved(signed []promote.Assented, f approveFlags) error {
	if g.json {
		return printJSON(os.Stdout, signed)
	}
	for _, a := range signed {
		what := "approved"
		if len(f.breakGlass) > 0 {
			what = "broke the glass for"
		}
		fmt.Printf("%s %s@%s to %s with key %s\n", what, a.Image, a.Digest, f.to, a.Key)
		if a.Commit != "" {
			fmt.Printf("  commit %.12s, attestation %.19s in %s\n", a.Commit, a.Statement, a.Repository)
		}
	}
	return nil
}
