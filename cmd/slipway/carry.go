//go:build linux && !client

package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"slipway/internal/attest"
	"slipway/internal/engine"
	"slipway/internal/mask"
	"slipway/internal/schedule"
	"slipway/internal/store"
	"slipway/pipeline"
)

// job is a plan to be carried out, wherever its files come from: a work tree of
// this machine, or a commit that a server has fetched.
type job struct {
	engine.Options
	dir      string // of the pipeline file, absolute
	plan     pipeline.Plan
	origin   committed
	signer   func(time.Time) (attest.Signer, error) // nil: nothing is signed
	secrets  map[string][]byte
	sshAgent string
	keepFor  time.Duration
	bound    keepBound // of what is kept
	caches   string    // see wiring
	machine  *schedule.Machine
	ahead    engine.Ahead
	progress func(pipeline.Progress)
}

// carry wires the engine to the opened parts and carries a job out.
func (g *globals) carry(ctx context.Context, s *stack, j job) (store.Run, error) {
	hidden, short := mask.New(slices.Collect(maps.Values(j.secrets))...)
	if short > 0 {
		g.log.Warn().Int("secrets", short).Msgf("some secrets are shorter than %d bytes and cannot be hidden in logs; use longer ones", mask.MinLength)
	}
	w := wiring{
		mask: hidden, stack: s, dir: j.dir, seeds: j.plan.Volumes, registries: g.registriesWith(nil, false), mirrors: func(host string) []string { return slices.Clone(g.registries[host].Mirrors) },
		secrets: j.secrets, sshAgent: j.sshAgent, keepFor: j.keepFor, keepBound: j.bound, caches: j.caches, log: g.log,
	}
	defer w.registries.Close()
	e := &engine.Engine{
		Build: w.build, Prepare: w.prepare, Inputs: inputs(j.dir, s.store), Fixtures: engine.Fixtures(j.dir), Fetch: w.fetch, Known: knownImages(s.store),
		Store: s.store, Progress: j.progress, Mask: w.mask, Machine: j.machine, Ahead: j.ahead, Log: g.log,
	}
	if j.signer != nil {
		e.Prove = prover{signer: j.signer, keys: g.keyring(), images: g.images, builder: s.builder, tree: j.origin}.prove
	}
	return e.Run(ctx, j.plan, j.Options)
}
