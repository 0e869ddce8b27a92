package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/ledger"
)

// listRemote lists the runs of a server, the newest last, as `slipway runs` does.
func (g *globals) listRemote(ctx context.Context, c *client) error {
	var all struct{ Runs []ledger.Run }
	if err := c.ask(ctx, http.MethodGet, "/api/v1/runs", nil, &all); err != nil {
		return err
	}
	if g.json {
		return printJSON(os.Stdout, all.Runs)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RUN\tSTATE\tACCEPTED\tREPOSITORY\tREF\tCOMMIT\t")
	for i := len(all.Runs) - 1; i >= 0; i-- {
		r := all.Runs[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.12s\t%s\n", r.ID, r.State, r.Created.Local().Format(time.DateTime), r.Name, r.Ref, r.Commit, r.Reason)
	}
	return t.Flush()
}

// serverCommand does one thing to a run of a server.
func serverCommand(g *globals, name, short string, body func(context.Context, *client, ledger.Run) any) *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{Use: name + " RUN", Short: short, Args: cobra.ExactArgs(1)}
	f.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := f.need(g)
		if err != nil {
			return err
		}
		return g.actOn(cmd.Context(), c, name, args[0], body)
	}
	return cmd
}

func (g *globals) actOn(ctx context.Context, c *client, what, id string, body func(context.Context, *client, ledger.Run) any) error {
	r, err := c.run(ctx, id)
	if err != nil {
		return err
	}
	var q any = struct{}{}
	if body != nil {
		q = body(ctx, c, r)
	}
	if err := c.ask(ctx, http.MethodPost, "/api/v1/runs/"+url.PathEscape(r.ID)+"/"+what, q, &r); err != nil {
		return err
	}
	if g.json {
		return printJSON(os.Stdout, r)
	}
	if r.Cancel != "" {
		fmt.Printf("run %s is being ended\n", r.ID)
		return nil
	}
	fmt.Printf("run %s is %s\n", r.ID, r.State)
	return nil
}

func cancelCommand(g *globals) *cobra.Command {
	return serverCommand(g, "cancel", "End a run of the server", nil)
}

func allowCommand(g *globals) *cobra.Command {
	var commit string
	cmd := serverCommand(g, "allow", "Let the commit of a fork run: without secrets, unsigned", func(_ context.Context, _ *client, r ledger.Run) any {
		if commit == "" {
			commit = r.Commit
		}
		return map[string]string{"commit": commit}
	})
	cmd.Flags().StringVar(&commit, "commit", "", "the commit that was looked at; another one is refused (default: the run's)")
	return cmd
}

// remoteRuns shows runs of the server that is asked for or that serves the root.
// A run that only the root knows is left to it.
func (g *globals) remoteRuns(ctx context.Context, f serverFlags, args []string) (done bool, err error) {
	c, err := f.client(g)
	if err != nil || c == nil {
		return false, err
	}
	if len(args) == 0 {
		return true, g.listRemote(ctx, c)
	}
	r, err := c.run(ctx, args[0])
	if errors.Is(err, errUnknown) && f.server == "" {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	if g.json {
		return true, printJSON(os.Stdout, r)
	}
	fmt.Printf("run %s of %s: %s %s\n%s %s %s\n", r.ID, r.Name, r.State, r.Reason, r.Ref, r.Commit, r.Title)
	if p := r.Promotion; p != nil {
		fmt.Printf("promotion %s: %s\n", p.State, p.Detail)
	}
	return true, nil
}

// remoteLogs prints the log of a run of the server that is asked for or that serves the root.
func (g *globals) remoteLogs(ctx context.Context, f serverFlags, id string, follow bool) (done bool, err error) {
	c, err := f.client(g)
	if err != nil || c == nil {
		return false, err
	}
	r, err := c.run(ctx, id)
	if errors.Is(err, errUnknown) && f.server == "" {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	return true, c.logs(ctx, r.ID, follow, os.Stdout)
}

// recordNamed is what the record of a run's last attempt is called in the root,
// where a server holds that and knows the run; of other runs it is their name. What
// stands behind a slash stays.
func (g *globals) recordNamed(ctx context.Context, which string) (string, error) {
	c, err := serverFlags{}.client(g)
	if err != nil || c == nil {
		return which, err
	}
	name, _, _ := strings.Cut(which, "/")
	run, err := c.run(ctx, name)
	if errors.Is(err, errUnknown) || err == nil && run.Record == "" {
		return which, nil
	}
	return run.Record + which[len(name):], err
}
