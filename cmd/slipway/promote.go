package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"slipway/internal/server"
	"slipway/promote"
)

type promoteFlags struct {
	environmentFlags
	serverFlags
	to, from, base, breakGlass string
	yes, dryRun                bool
}

func promoteCommand(g *globals) *cobra.Command {
	var f promoteFlags
	cmd := &cobra.Command{
		Use:   "promote IMAGE... --to ENVIRONMENT",
		Short: "Bring exactly what was tested into an environment",
		Long: "Asks the environment's gates about the image's proofs, shows who built it from which\ncommit, which tests passed and what changes, asks you, and then does it: the image is\ncopied by digest with its proofs, one commit changes the environment's file, it is\ndelivered and verified, and taken back if that fails.\n\n" +
			"IMAGE is NAME@sha256:… or REPOSITORY@sha256:…, or with --from the NAME of an image that\nanother environment runs. Several images are promoted as one.\n\n" + exitHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return g.promote(cmd.Context(), args, f) },
	}
	f.environmentFlags.register(cmd.Flags())
	f.serverFlags.register(cmd.Flags())
	cmd.Flags().StringVar(&f.to, "to", "", "the environment (required)")
	cmd.Flags().StringVar(&f.from, "from", "", "take the digests that this environment runs")
	cmd.Flags().StringVar(&f.base, "base", "", "only if the environment is still as this commit left it (`base` of --dry-run --json)")
	cmd.Flags().StringVar(&f.breakGlass, "break-glass", "", "why gates are to be set aside; a second person must have signed that")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "show all of it, change nothing")
	return cmd
}

// promotionJSON is what `slipway promote --json` and `slipway rollback --json` print.
type promotionJSON struct {
	Plan    *promote.Plan    `json:"plan"`
	Open    bool             `json:"open"` // every gate is
	Sources []string         `json:"sources,omitempty"`
	Outcome *promote.Outcome `json:"outcome,omitempty"`
}

func (g *globals) promote(ctx context.Context, args []string, f promoteFlags) error {
	images, err := wanted(args, f.from) // a tag is refused before anything else is tried
	if err != nil {
		return err
	}
	if f.to == "" {
		return usagef("where to? name the environment with --to")
	}
	if f.server != "" {
		wish := server.Wish{Environment: f.to, Images: images, From: f.from, Base: f.base, BreakGlass: f.breakGlass}
		return g.promoteRemotely(ctx, f.serverFlags, wish, f.yes, f.dryRun)
	}
	return g.withPromoter(ctx, f.environmentFlags, func(p *promote.Promoter) error {
		plan, err := p.Plan(ctx, promote.Request{
			Environment: f.to, Images: images, From: f.from, Actor: f.person().String(), Base: f.base, BreakGlass: f.breakGlass,
		})
		if err != nil {
			return err
		}
		return g.carryOut(plan.Propose(), f.yes, f.dryRun, func() (promote.Outcome, promote.Proposal, error) {
			out, plan, err := p.Promote(ctx, plan)
			return out, plan.Propose(), err
		})
	})
}

// carryOut shows a plan, asks, and does it.
func (g *globals) carryOut(shown promote.Proposal, yes, dryRun bool, do func() (promote.Outcome, promote.Proposal, error)) error {
	out := painter{w: os.Stdout, color: g.color && isTerminal(os.Stdout)}
	if !g.json {
		out.plan(shown)
	}
	if dryRun {
		if g.json {
			if err := printJSON(os.Stdout, promotionJSON{Plan: shown.Plan, Open: shown.Open, Sources: shown.Record.Sources}); err != nil {
				return err
			}
		} else {
			fmt.Println("\nnothing was changed")
		}
		if !shown.Open {
			return exitError(exitRefused)
		}
		return nil
	}
	if shown.Open && !shown.Plan.Nothing() && !yes {
		if err := confirm(shown.Plan); err != nil {
			return err
		}
	}
	outcome, last, err := do()
	if err != nil {
		return err
	}
	if g.json {
		err = printJSON(os.Stdout, promotionJSON{Plan: last.Plan, Open: last.Open, Sources: last.Record.Sources, Outcome: &outcome})
	} else {
		out.outcome(outcome)
	}
	if err != nil {
		return err
	}
	return exitOf(outcome)
}

func exitOf(o promote.Outcome) error {
	switch o.State {
	case promote.Refused:
		return exitError(exitRefused)
	case promote.Back:
		return exitError(exitFailed)
	case promote.Broken, promote.Undone:
		return exitError(exitBroken)
	}
	return nil
}

func confirm(plan *promote.Plan) error {
	if !isTerminal(os.Stdin) {
		return usagef("nobody is there to be asked; give --yes, and --base %s to do only what was shown", plan.Base)
	}
	fmt.Printf("\nchange %s? [y/N] ", plan.Environment)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a == "y" || a == "yes" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	fmt.Println("nothing was changed")
	return exitError(exitCanceled)
}

func (p painter) plan(shown promote.Proposal) {
	plan, r := shown.Plan, shown.Record
	fmt.Fprintf(p.w, "%s %s to %s", kindOf(r), plan.Promotion, p.paint(bold, plan.Environment))
	if r.From != "" {
		fmt.Fprintf(p.w, " (from %s)", r.From)
	}
	fmt.Fprintln(p.w)
	if plan.Nothing() {
		fmt.Fprintln(p.w, "it runs that already")
		return
	}
	for _, im := range plan.Images {
		fmt.Fprintf(p.w, "  %s %s, was %s\n", im.Name, digestText(im.Digest), digestText(im.Previous))
	}
	for _, s := range r.Sources {
		f := strings.Fields(s)
		fmt.Fprintf(p.w, "  %s is commit %.12s of %s\n", f[0], f[1], strings.Join(f[2:], " "))
	}
	if len(plan.Table.Rows) > 0 {
		fmt.Fprintln(p.w)
	}
	for _, row := range plan.Table.Rows {
		p.gate(row)
	}
	fmt.Fprintln(p.w)
	p.diff(plan.Diff)
}

func kindOf(r promote.Record) string {
	if r.Kind == promote.RolledBack {
		return "rollback"
	}
	return "promotion"
}

func (p painter) gate(r promote.Row) {
	what := r.Gate
	if r.Image != "" {
		what += " of " + r.Image
	}
	switch {
	case r.Passed:
		fmt.Fprintf(p.w, "  %s %s: %s", p.paint(green, "passed "), what, r.Asked)
		if r.Shown != "" {
			fmt.Fprint(p.w, p.paint(dim, " ("+r.Shown+")"))
		}
		fmt.Fprintln(p.w)
	case r.SetAside != "":
		fmt.Fprintf(p.w, "  %s %s: %s: %s; set aside by %s\n", p.paint(yellow, "broken "), what, r.Asked, r.Missing, r.SetAside)
	default:
		fmt.Fprintf(p.w, "  %s %s: %s: %s\n", p.paint(red, "missing"), what, r.Asked, r.Missing)
		if r.Next != "" {
			fmt.Fprintf(p.w, "          next: %s\n", r.Next)
		}
	}
}

func (p painter) outcome(o promote.Outcome) {
	switch o.State {
	case promote.Done:
		fmt.Fprintf(p.w, "\n%s: %s runs it (commit %.12s)\n", p.paint(green, "done"), o.Environment, o.Commit)
	case promote.Unchanged:
		fmt.Fprintf(p.w, "\n%s: %s ran it already\n", p.paint(green, "unchanged"), o.Environment)
	case promote.Refused:
		fmt.Fprintf(p.w, "\n%s: %s\n", p.paint(red, "refused"), o.Reason)
	case promote.Back:
		fmt.Fprintf(p.w, "\n%s: %s; %s runs what it ran before (commit %.12s)\n", p.paint(red, "rolled back"), o.Reason, o.Environment, o.Commit)
	default:
		fmt.Fprintf(p.w, "\n%s: %s\n", p.paint(red, o.State), o.Reason)
	}
}

func (p painter) diff(diff string) {
	for line := range strings.Lines(diff) {
		color := ""
		switch {
		case strings.HasPrefix(line, "+"):
			color = green
		case strings.HasPrefix(line, "-"):
			color = red
		}
		fmt.Fprintf(p.w, "  %s\n", p.paint(color, strings.TrimSuffix(line, "\n")))
	}
}
