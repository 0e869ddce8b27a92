package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/engine"
	"slipway/internal/store"
)

func runsCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "runs [RUN]",
		Short: "List the runs on this root, or show one (`last` is the newest)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s := store.ReadOnly(g.root)
			if len(args) == 1 {
				run, err := s.Run(args[0])
				if err != nil {
					return usageError{err}
				}
				if g.json {
					return printJSON(os.Stdout, run)
				}
				painter{w: os.Stdout, color: g.color && isTerminal(os.Stdout)}.run(run, s.RunDir(run.ID))
				return nil
			}
			runs, err := s.Runs()
			if err != nil {
				return err
			}
			if g.json {
				return printJSON(os.Stdout, runs)
			}
			t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "RUN\tSTATE\tSTARTED\tTOOK\tCOMMIT\tDIR")
			for _, r := range runs {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.12s\t%s\n", r.ID, r.State, r.Started.Local().Format(time.DateTime),
					short(time.Duration(r.Duration)*time.Millisecond), r.Commit, r.Dir)
			}
			return t.Flush()
		},
	}
}

func logsCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "logs RUN[/TASK]",
		Short: "Print the output of a run's tests (RUN may be `last`)",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s := store.ReadOnly(g.root)
			name, task, one := strings.Cut(args[0], "/")
			run, err := s.Run(name)
			if err != nil {
				return usageError{err}
			}
			dir := s.RunDir(run.ID)
			if one {
				return printTaskLogs(filepath.Join(dir, engine.TaskDir(task), "log"), args[0])
			}
			logs, err := filepath.Glob(filepath.Join(dir, "*", "log"))
			if err != nil {
				return err
			}
			for _, path := range logs {
				fmt.Printf("== %s\n", engine.TaskOf(filepath.Base(filepath.Dir(path))))
				if err := printTaskLogs(path, args[0]); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// printTaskLogs prints what a test said, and after it what its services did.
func printTaskLogs(path, asked string) error {
	if err := printLog(path, asked); err != nil {
		return err
	}
	services, err := serviceLogs(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, log := range services {
		fmt.Printf("== service %s\n", strings.TrimSuffix(filepath.Base(log), logSuffix))
		if err := printLog(log, asked); err != nil {
			return err
		}
	}
	return nil
}

func printLog(path, asked string) error {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return usagef("no log of %s: the task did not run, or its result was reused; `slipway runs last` names the tasks: %w", asked, fs.ErrNotExist)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(os.Stdout, f)
	return err
}
