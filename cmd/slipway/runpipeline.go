package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/git"
	"slipway/internal/store"
	"slipway/pipeline"
)

// runFlags are those of `run pipeline`.
type runFlags struct {
	eventFlags
	signerFlags
	serverFlags
	only         []string
	dryRun       bool
	rerunTests   bool
	noCache      bool
	secrets      string
	builder      string
	builderCerts string
	parallel     int
	keepFailed   keepFlag
	keepFor      time.Duration
	progress     string
	sshAgent     string // of whoever asks
}

func runPipelineCommand(g *globals) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "pipeline [DIR]",
		Short: "Build and test what is in DIR (default .); ship nothing",
		Long: "Builds the images of DIR's .ci.yml and runs their tests in sandboxes made from\nexactly those digests. Ships nothing.\n\n" +
			"Without --event, `when` and `paths` hold nothing back.\n\n" + exitHelp,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.runWhere(cmd.Context(), dirArg(args), f, cmd.Flags())
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.dryRun, "dry-run", false, "print what would be done and why; build, start and write nothing")
	fs.StringArrayVar(&f.only, "only", nil, "an image or IMAGE/TEST and what it needs (repeatable)")
	fs.StringVar(&f.kind, "event", "", "run as this event: push, pull_request, tag or schedule")
	fs.StringVar(&f.ref, "ref", "", "run as this ref, e.g. refs/heads/main (default: what is checked out)")
	fs.StringVar(&f.base, "base", "", "with --event: the commit or branch that `paths` are compared with")
	fs.BoolVar(&f.rerunTests, "rerun-tests", false, "run tests even where their result could be reused; layers stay cached")
	fs.BoolVar(&f.noCache, "no-cache", false, "rebuild every layer, and --rerun-tests")
	f.keepFailed.register(fs, "keep the sandboxes of failed tests, with their services, for `slipway shell`")
	fs.DurationVar(&f.keepFor, "keep-for", time.Hour, "with --keep-failed: how long they stay, from their last use")
	fs.StringVar(&f.secrets, "secrets", "", "file of NAME=VALUE lines: the secrets that builds and tests may name")
	fs.StringVar(&f.builder, "builder", "", "build on a buildkitd: unix://PATH or tcp://HOST:PORT (default: inside slipway)")
	fs.StringVar(&f.builderCerts, "builder-certs", "", "directory with ca.pem, cert.pem and key.pem for a tcp builder")
	fs.IntVar(&f.parallel, "parallel", 0, "at most this many builds and tests at once (default: what cores and memory carry)")
	f.signerFlags.register(fs)
	f.serverFlags.register(fs)
	fs.StringVar(&f.progress, "progress", "auto", "auto, tty, plain or quiet")
	return cmd
}

// plan says what is to be done in a directory.
func (f runFlags) plan(ctx context.Context, dir string) (abs string, plan pipeline.Plan, ev pipeline.Event, tree *git.Tree, err error) {
	abs, p, err := load(dir)
	if err != nil {
		return abs, plan, ev, tree, err
	}
	if ev, tree, err = f.event(ctx, abs); err != nil {
		return abs, plan, ev, tree, err
	}
	if plan, err = p.Expand(ev, f.only...); err != nil {
		return abs, plan, ev, tree, usageError{err}
	}
	return abs, plan, ev, tree, errors.Join(checkMounts(abs, plan), checkEnvFiles(abs, plan))
}

// conclude prints what a run came to and gives its exit code.
func (g *globals) conclude(run store.Run, logs string) error {
	if g.json {
		if err := printJSON(os.Stdout, run); err != nil {
			return err
		}
	} else {
		painter{w: os.Stdout, color: g.color && isTerminal(os.Stdout)}.run(run, logs)
	}
	switch run.State {
	case pipeline.Passed, pipeline.Skipped:
		return nil
	case pipeline.Failed:
		return exitError(exitFailed)
	case pipeline.Canceled:
		return exitError(exitCanceled)
	default:
		return exitError(exitBroken)
	}
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write the JSON document: %w", err)
	}
	return nil
}
