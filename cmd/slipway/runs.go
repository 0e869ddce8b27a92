package main

import (
	"crypto/sha256"
	"encoding/hex"
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
	var f serverFlags
	cmd := &cobra.Command{
		Use:   "runs [RUN]",
		Short: "List the runs on this root or of its server, or show one (`last` is the newest)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if done, err := g.remoteRuns(cmd.Context(), f, args); done || err != nil {
				return err
			}
			if err := hasRoot(); err != nil {
				return err
			}
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
	f.register(cmd.Flags())
	return cmd
}

func logsCommand(g *globals) *cobra.Command {
	var f projectFlags
	var from serverFlags
	var follow bool
	var tail int
	cmd := &cobra.Command{
		Use:   "logs [RUN[/TASK] | DIR] [CONTAINER...]",
		Short: "Print the output of a run's tests (RUN may be `last`), or of the containers that run for DIR",
		Long:  "Prints what the tests of a run on this root said (RUN may be `last`), or, for a\ndirectory (default .) or --env, what its running containers say.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.env == "" && len(args) == 1 && (from.server != "" || !isDirectory(args[0])) {
				if done, err := g.remoteLogs(cmd.Context(), from, args[0], follow); done || err != nil {
					return err
				}
			}
			if err := hasRoot(); err != nil {
				return err
			}
			if f.env == "" && len(args) > 0 && !isDirectory(args[0]) {
				if len(args) > 1 {
					return usagef("%s is no directory; give one run, or RUN/TASK", args[0])
				}
				record, err := g.recordNamed(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return g.runLogs(record)
			}
			containers := args
			if f.env == "" && len(args) > 0 {
				containers = args[1:]
			}
			project, _, err := f.project(args[:min(1, len(args))])
			if err != nil {
				return err
			}
			return g.followLogs(cmd.Context(), project, containers, tail, follow)
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "of containers: go on until interrupted; of a run of the server: until its end")
	from.register(cmd.Flags())
	cmd.Flags().IntVar(&tail, "tail", -1, "of containers: so many lines of each (default: all that is kept)")
	return cmd
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// runLogs prints what the tests of a run said: "RUN", or "RUN/TASK".
func (g *globals) runLogs(which string) error {
	s := store.ReadOnly(g.root)
	name, task, one := strings.Cut(which, "/")
	run, err := s.Run(name)
	if err != nil {
		return usageError{err}
	}
	dir := s.RunDir(run.ID)
	if one {
		return printTaskLogs(filepath.Join(dir, engine.TaskDir(task), "log"), which)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "*", "log"))
	if err != nil {
		return err
	}
	for _, path := range logs {
		fmt.Printf("== %s\n", engine.TaskOf(filepath.Base(filepath.Dir(path))))
		if err := printTaskLogs(path, which); err != nil {
			return err
		}
	}
	return nil
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

// projectFlags choose a project: an environment by name, or else the development
// set of a directory.
type projectFlags struct{ env string }

func (f *projectFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.env, "env", "", "the environment of this name, in place of a directory's development set")
}

// project gives the project's name, and the directory it belongs to.
func (f *projectFlags) project(args []string) (name, dir string, err error) {
	if f.env != "" {
		return f.env, "", nil
	}
	dir, err = filepath.Abs(dirArg(args))
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", "", usagef("%w", err)
	}
	return developmentSet(dir), dir, nil
}

// developmentSet names the project of a directory: two checkouts are two projects.
func developmentSet(dir string) string {
	base := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(filepath.Base(dir)), "-"), "-")
	if base == "" {
		base = "set"
	}
	sum := sha256.Sum256([]byte(dir))
	return base[:min(len(base), 40)] + "-" + hex.EncodeToString(sum[:3])
}

const logSuffix = ".log"

// serviceLogs are the files of what the services of an attempt said, sorted by
// name. dir is where the attempt's own log is.
func serviceLogs(dir string) ([]string, error) {
	return filepath.Glob(filepath.Join(globQuote(dir), engine.ServiceLogs, "*"+logSuffix))
}

// globQuote makes a path mean itself: names of a matrix hold brackets.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
