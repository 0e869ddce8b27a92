//go:build linux && !client

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"slipway/builder/progress"
	"slipway/internal/engine"
	"slipway/internal/store"
	"slipway/pipeline"
)

func (g *globals) runPipeline(ctx context.Context, dir string, f runFlags) error {
	abs, plan, ev, tree, err := f.plan(ctx, dir)
	if err != nil {
		return err
	}
	if f.dryRun {
		return g.dryRun(ctx, abs, plan, ev, f)
	}
	if f.parallel < 0 {
		return usagef("--parallel %d: give at least 1, or leave it out", f.parallel)
	}
	secrets, err := readSecrets(f.secrets)
	if err == nil {
		err = checkSecrets(secrets, plan)
	}
	if err != nil {
		return err
	}
	remote, err := remoteBuilder(f.builder, f.builderCerts)
	if err != nil {
		return err
	}
	f.sshAgent = os.Getenv("SSH_AUTH_SOCK")
	s, err := g.open(ctx, openOptions{command: "slipway run pipeline " + dir, sandbox: true, volumes: mountsVolumes(plan), parallel: f.parallel, remote: remote})
	if err != nil {
		return err
	}
	run, err := g.conduct(ctx, s, abs, plan, ev, watch(ctx, filepath.Join(abs, pipelineFile), tree), secrets, f, os.Stderr)
	if err = errors.Join(err, s.close()); err != nil {
		return err
	}
	return g.conclude(run, s.store.RunDir(run.ID))
}

// conduct wires the engine to the opened parts and runs the plan under a display on out.
func (g *globals) conduct(ctx context.Context, s *stack, dir string, plan pipeline.Plan, ev pipeline.Event,
	tree *worktree, secrets map[string][]byte, f runFlags, out io.Writer,
) (store.Run, error) {
	display, err := progress.New(ctx, out, progress.Options{Mode: progress.Mode(f.progress), NoColor: !g.color})
	if err != nil {
		return store.Run{}, usageError{err}
	}
	run, err := g.carry(ctx, s, job{
		Options: engine.Options{
			ID: store.NewRunID(time.Now()), Dir: dir, RerunTests: f.rerunTests, NoCache: f.noCache, KeepFailed: f.keepFailed.on,
			Event: func() (pipeline.Event, error) { return tree.event(ev) },
		},
		dir: dir, plan: plan, origin: tree, signer: f.signer(g.keyring()), secrets: secrets, sshAgent: f.sshAgent, keepFor: f.keepFailed.stay(f.keepFor),
		machine: s.machine, ahead: s.ahead, progress: display.Write,
	})
	return run, errors.Join(err, display.Close())
}
