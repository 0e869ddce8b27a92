package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"slipway/internal/git"
	"slipway/internal/server"
	"slipway/pipeline"
	"slipway/promote"
)

func envCommand(g *globals) *cobra.Command {
	var f environmentFlags
	var at serverFlags
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Begin environments, and see what runs where, since when, by whom",
		Args:  cobra.NoArgs,
		RunE:  needsSubcommand,
	}
	begin := &cobra.Command{
		Use: "init [DIR]", Short: "Put the environment files that DIR's .ci.yml names, and their keys, into the environments' repository",
		Long: "Puts the environment files that DIR's .ci.yml names, and the public keys that their gates\nname, into the environments' repository, which it makes where there is none. What is\nthere already stays: from then on that repository is authoritative.\n\n" + exitHelp,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.beginEnvironments(cmd.Context(), f, dirArg(args))
		},
	}
	status := &cobra.Command{
		Use: "status [ENVIRONMENT...]", Short: "Say what runs where, since when and by whom, and where that is not what was promoted",
		RunE: func(cmd *cobra.Command, args []string) error { return g.environmentStatus(cmd.Context(), f, at, args) },
	}
	diff := &cobra.Command{
		Use: "diff ENVIRONMENT [OTHER]", Short: "Compare an environment with another, with an earlier promotion, or with what it was before",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return g.environmentDiff(cmd.Context(), f, at, args) },
	}
	history := &cobra.Command{
		Use: "history ENVIRONMENT", Short: "List what an environment went through, the newest first",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return g.environmentHistory(cmd.Context(), f, at, args) },
	}
	for _, c := range []*cobra.Command{begin, status, diff, history} {
		f.register(c.Flags())
		if c != begin {
			at.register(c.Flags())
		}
		cmd.AddCommand(c)
	}
	return cmd
}

// sourceOf names the pipeline of a directory as runs of it do.
func sourceOf(dir string) (pipeline.Source, error) {
	tree, err := git.Open(dir)
	if errors.Is(err, git.ErrNone) {
		return pipeline.Source{}, nil
	}
	if err != nil {
		return pipeline.Source{}, err
	}
	var s pipeline.Source
	if s.Pipeline, err = tree.Rel(filepath.Join(dir, pipelineFile)); err != nil {
		return s, err
	}
	if s.Repository, err = tree.Origin(); s.Repository == "" {
		s.Repository = "file://" + tree.Root
	}
	return s, err
}

func (g *globals) environmentStatus(ctx context.Context, f environmentFlags, at serverFlags, args []string) error {
	all, err := ask(ctx, g, f, at, "environments?"+url.Values{"name": args}.Encode(), func(p *promote.Promoter) (server.Environments, error) {
		all, err := p.Status(ctx, args...)
		return server.Environments{Environments: all}, err
	})
	if err != nil {
		return err
	}
	if g.json {
		return printJSON(os.Stdout, all.Environments)
	}
	out := painter{w: os.Stdout, color: g.color && isTerminal(os.Stdout)}
	for i, s := range all.Environments {
		if i > 0 {
			fmt.Println()
		}
		out.environmentStatus(s)
	}
	return nil
}

// ask asks the server that is named, else the environments from here.
func ask[T any](ctx context.Context, g *globals, f environmentFlags, at serverFlags, path string, here func(*promote.Promoter) (T, error)) (answer T, err error) {
	if at.server == "" {
		return answer, g.withPromoter(ctx, f, func(p *promote.Promoter) error {
			answer, err = here(p)
			return err
		})
	}
	c, err := at.client(g)
	if err != nil {
		return answer, err
	}
	return answer, c.ask(ctx, http.MethodGet, "/api/v1/"+path, nil, &answer)
}

func (p painter) environmentStatus(s promote.EnvironmentStatus) {
	fmt.Fprint(p.w, p.paint(bold, s.Name))
	if s.Deliver != "" {
		fmt.Fprintf(p.w, " (%s)", s.Deliver)
	}
	fmt.Fprintf(p.w, "  commit %.12s\n", s.Commit)
	if s.Error != "" {
		fmt.Fprintln(p.w, indent(p.paint(red, s.Error), "  "))
	}
	for _, im := range s.Images {
		fmt.Fprintf(p.w, "  %s  %s\n", im.Name, digestText(im.Digest))
		if im.Since != nil {
			fmt.Fprintf(p.w, "    since %s by %s", im.Since.Local().Format(time.DateTime), im.By)
			if im.Promotion != "" {
				fmt.Fprintf(p.w, ", promotion %s", im.Promotion)
			}
			fmt.Fprintf(p.w, "%s\n", proofs(len(im.Evidence)))
		}
		if r := im.Running; r != nil {
			fmt.Fprintf(p.w, "    %s%s\n", r.State, because(r.Detail))
		}
	}
	if s.Drift != "" {
		fmt.Fprintf(p.w, "  %s: %s; `slipway promote` the digest that should run there again\n", p.paint(red, "drift"), s.Drift)
	}
	if s.Unknown != "" {
		fmt.Fprintf(p.w, "  %s: %s\n", p.paint(yellow, "what runs is not known"), s.Unknown)
	}
}

func proofs(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", with %d proofs", n)
}

func (g *globals) environmentDiff(ctx context.Context, f environmentFlags, at serverFlags, args []string) error {
	from := first(args[1:])
	path := "environments/" + url.PathEscape(args[0]) + "/diff?" + url.Values{"from": {from}}.Encode()
	d, err := ask(ctx, g, f, at, path, func(p *promote.Promoter) (d promote.Difference, err error) {
		state, err := p.Environments.Read(ctx)
		if err == nil {
			d, err = state.Diff(args[0], from)
		}
		return d, err
	})
	if err != nil {
		return err
	}
	if g.json {
		return printJSON(os.Stdout, d)
	}
	fmt.Printf("from %s to %s\n", d.From, d.To)
	for _, line := range d.Lines {
		fmt.Println(" ", line)
	}
	if len(d.Lines) == 0 {
		fmt.Println("  no difference")
	}
	return nil
}

func (g *globals) environmentHistory(ctx context.Context, f environmentFlags, at serverFlags, args []string) error {
	path := "environments/" + url.PathEscape(args[0]) + "/history"
	all, err := ask(ctx, g, f, at, path, func(p *promote.Promoter) (all server.Entries, err error) {
		state, err := p.Environments.Read(ctx)
		if err == nil {
			all.Entries, err = state.History(args[0])
		}
		return all, err
	})
	if err != nil {
		return err
	}
	if g.json {
		return printJSON(os.Stdout, all.Entries)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHEN\tWHAT\tPROMOTION\tBY\tIMAGES\tCOMMIT")
	for _, e := range all.Entries {
		var images []string
		for _, im := range e.Images {
			images = append(images, im.Name+"@"+digestText(im.Digest)[:min(len(digestText(im.Digest)), 19)])
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.12s\n", e.When.Local().Format(time.DateTime), e.Kind, e.ID, e.Actor, strings.Join(images, " "), e.Commit)
		if e.Reason != "" {
			fmt.Fprintf(t, "\t%.60s\t\t\t\t\n", e.Reason) // whole in --json
		}
	}
	return t.Flush()
}

func digestText(d digest.Digest) string {
	if d == "" {
		return "nothing"
	}
	return d.String()
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
