package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"slipway/internal/ledger"
	"slipway/internal/store"
	"slipway/pipeline"
)

func rerunCommand(g *globals) *cobra.Command {
	f := runFlags{rerunTests: true}
	var frozen, fromFailed, samePlan bool
	var from serverFlags
	cmd := &cobra.Command{
		Use:   "rerun RUN[/TEST]",
		Short: "Run a test of a past run again, or all that failed in it",
		Long: "Runs TEST again, with the images it needs, on the directory of that run as it is now;\n" +
			"without TEST all that failed. It is a run of its own. With --frozen the test's command\n" +
			"runs once more in its kept sandbox, on what it left there: that is no run, and proves\n" +
			"nothing; its exit code is slipway's.\n\n" +
			"A run of a server, the root's or that of --server, is tried again there: as a whole, with\n--from-failed only what did not pass (and what needs that), with --same-plan on the images\nof the attempt before, without building any anew.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if frozen {
				return g.rerunFrozen(cmd.Context(), args[0])
			}
			c, err := from.client(g)
			if err != nil {
				return err
			}
			if c != nil {
				if err = g.actOn(cmd.Context(), c, "rerun", args[0], func(context.Context, *client, ledger.Run) any {
					return map[string]bool{"from_failed": fromFailed, "same_plan": samePlan}
				}); !errors.Is(err, errUnknown) || from.server != "" {
					return err
				}
			}
			if fromFailed || samePlan {
				return usagef("--from-failed and --same-plan are for runs of a server; here `slipway rerun %s` runs what failed", args[0])
			}
			return g.rerun(cmd.Context(), args[0], f, cmd.Flags())
		},
	}
	fs := cmd.Flags()
	from.register(fs)
	fs.BoolVar(&fromFailed, "from-failed", false, "of a run of a server: only what did not pass")
	fs.BoolVar(&samePlan, "same-plan", false, "of a run of a server: test the same images again, and build none")
	fs.BoolVar(&frozen, "frozen", false, "run the command again in the kept sandbox, as it is")
	f.keepFailed.register(fs, "keep the sandboxes of failed tests, with their services, for `slipway shell`")
	fs.DurationVar(&f.keepFor, "keep-for", time.Hour, "with --keep-failed: how long they stay, from their last use")
	fs.StringVar(&f.secrets, "secrets", "", "file of NAME=VALUE lines: the secrets that builds and tests may name")
	fs.StringVar(&f.progress, "progress", "auto", "auto, tty, plain or quiet")
	return cmd
}

func (g *globals) rerun(ctx context.Context, arg string, f runFlags, given *pflag.FlagSet) error {
	name, task, one := strings.Cut(arg, "/")
	run, err := store.ReadOnly(g.root).Run(name)
	if err != nil {
		return usageError{err}
	}
	tests := testsOf(run)
	if _, ok := tests[task]; one && !ok {
		return usageError{noTest(run, task)}
	}
	if one {
		f.only = []string{task}
	} else {
		f.only = failedIn(run)
	}
	if len(f.only) == 0 {
		fmt.Fprintf(os.Stderr, "slipway: nothing failed in run %s; name a test: slipway rerun %s/TEST\n", run.ID, run.ID)
		return nil
	}
	if _, err := os.Stat(run.Dir); err != nil {
		return usagef("the directory of run %s: %w", run.ID, err)
	}
	return g.runWhere(ctx, run.Dir, f, given)
}

// failedIn names the tasks of a run that failed, and those that broke.
func failedIn(run store.Run) (names []string) {
	bad := []pipeline.State{pipeline.Failed, pipeline.Error}
	for _, im := range run.Images {
		if slices.Contains(bad, pipeline.State(im.State)) {
			names = append(names, im.Name+matrixSuffix(im.Matrix))
		}
	}
	tests := testsOf(run)
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		if slices.Contains(bad, tests[name].State) {
			names = append(names, name)
		}
	}
	return names
}
