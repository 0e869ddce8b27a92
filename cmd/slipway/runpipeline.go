package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"slipway/builder/progress"
	"slipway/internal/engine"
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
			if f.server != "" && (!f.dryRun || cmd.Flags().Changed("server")) { // a dry run is of here
				if err := elsewhere(cmd.Flags()); err != nil {
					return err
				}
				return g.runRemotely(cmd.Context(), dirArg(args), f)
			}
			return g.runPipeline(cmd.Context(), dirArg(args), f)
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

func (g *globals) runPipeline(ctx context.Context, dir string, f runFlags) error {
	abs, plan, ev, tree, err := f.plan(ctx, dir)
	if err != nil {
		return err
	}
	if f.dryRun {
		return g.dryRun(ctx, abs, plan, ev, f)
	}
	if f.keepFor <= 0 {
		return usagef("--keep-for %s: give a time such as 30m or 2h", f.keepFor)
	}
	if f.parallel < 0 {
		return usagef("--parallel %d: give at least 1, or leave it out", f.parallel)
	}
	secrets, err := readSecrets(f.secrets, plan)
	if err != nil {
		return err
	}
	remote, err := remoteBuilder(f.builder, f.builderCerts)
	if err != nil {
		return err
	}
	s, err := g.open(ctx, openOptions{command: "slipway run pipeline " + dir, sandbox: true, volumes: mountsVolumes(plan), parallel: f.parallel, remote: remote})
	if err != nil {
		return err
	}
	run, err := g.conduct(ctx, s, abs, plan, ev, watch(ctx, filepath.Join(abs, pipelineFile), tree), secrets, f)
	if err = errors.Join(err, s.close()); err != nil {
		return err
	}
	return g.conclude(run, s.store.RunDir(run.ID))
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

// conduct wires the engine to the opened parts and runs the plan under a display.
func (g *globals) conduct(ctx context.Context, s *stack, dir string, plan pipeline.Plan, ev pipeline.Event,
	tree *worktree, secrets map[string][]byte, f runFlags,
) (store.Run, error) {
	display, err := progress.New(ctx, os.Stderr, progress.Options{Mode: progress.Mode(f.progress), NoColor: !g.color})
	if err != nil {
		return store.Run{}, usageError{err}
	}
	machine, ahead, err := openMachine(f.parallel)
	if err != nil {
		return store.Run{}, errors.Join(err, display.Close())
	}
	run, err := g.carry(ctx, s, job{
		Options: engine.Options{
			ID: store.NewRunID(time.Now()), Dir: dir, RerunTests: f.rerunTests, NoCache: f.noCache, KeepFailed: f.keepFailed.on,
			Event: func() (pipeline.Event, error) { return tree.event(ev) },
		},
		dir: dir, plan: plan, origin: tree, signer: f.signer(g.keyring()), secrets: secrets, sshAgent: os.Getenv("SSH_AUTH_SOCK"), keepFor: f.keepFailed.stay(f.keepFor),
		machine: machine, ahead: ahead, progress: display.Write,
	})
	return run, errors.Join(err, display.Close())
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
