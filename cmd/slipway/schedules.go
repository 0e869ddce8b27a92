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

func schedulesCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "schedules", Short: "Say when `slipway serve` runs a branch by the clock", RunE: needsSubcommand}
	cmd.AddCommand(addScheduleCommand(g), listSchedulesCommand(g), dropScheduleCommand(g))
	return cmd
}

func addScheduleCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	var s ledger.Schedule
	cmd := &cobra.Command{
		Use: "add REPO NAME", Short: "Run a branch of a repository at the times that --cron says", Args: cobra.ExactArgs(2),
		Long: "Has the server run what a branch is at, at each time that --cron says: MINUTE HOUR DAY MONTH\nWEEKDAY, or @daily. In .ci.yml, `when: {schedule: {names: [NAME]}}` says what runs then.\nSee docs/server.md.",
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&s.Cron, "cron", "", `when, as crontab(5) has it: "0 3 * * *" is at 3:00 every day`)
	cmd.Flags().StringVar(&s.Branch, "branch", "main", "the branch to run")
	cmd.Flags().StringVar(&s.Zone, "timezone", "UTC", "of the times in --cron, e.g. Europe/Berlin")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.withRepo(cmd.Context(), f, args[0], func(l *ledger.Ledger, r ledger.Repo) error {
			s.Repo, s.Of, s.Name = r.ID, r.Name, args[1]
			made, err := l.AddSchedule(cmd.Context(), s)
			if err != nil {
				return usageError{err}
			}
			if err := l.Note(cmd.Context(), ledger.Deed{At: time.Now(), Actor: actorHere(), Action: "schedules add", Object: r.Name + " " + s.Name, Detail: s.Cron + " " + s.Zone + " " + s.Branch}); err != nil {
				return err
			}
			if g.json {
				return printJSON(os.Stdout, made)
			}
			fmt.Printf("%s runs %s of %s, next at %s\n", s.Name, s.Branch, r.Name, made.Due.Format(time.RFC1123))
			return nil
		})
	}
	return cmd
}

func listSchedulesCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List the schedules, with when they are due next", Args: cobra.NoArgs}
	f.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return g.withLedger(cmd.Context(), f, func(l *ledger.Ledger) error {
			all, err := l.Schedules(cmd.Context())
			if err != nil || g.json {
				return errors.Join(err, printJSON(os.Stdout, all))
			}
			t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "REPOSITORY\tNAME\tCRON\tTIMEZONE\tBRANCH\tNEXT\tLAST RUN")
			for _, s := range all {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Of, s.Name, s.Cron, s.Zone, s.Branch, s.Due.Local().Format(time.DateTime), s.Run)
			}
			return t.Flush()
		})
	}
	return cmd
}

func dropScheduleCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{Use: "rm REPO NAME", Short: "Remove a schedule; its runs stay", Args: cobra.ExactArgs(2)}
	f.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.withRepo(cmd.Context(), f, args[0], func(l *ledger.Ledger, r ledger.Repo) error {
			err := l.DropSchedule(cmd.Context(), r.ID, args[1])
			if errors.Is(err, ledger.ErrNone) {
				return usagef("%s has no schedule called %s; `slipway schedules ls` lists them", r.Name, args[1])
			}
			return errors.Join(err, l.Note(cmd.Context(), ledger.Deed{At: time.Now(), Actor: actorHere(), Action: "schedules rm", Object: r.Name + " " + args[1]}))
		})
	}
	return cmd
}
