//go:build linux && !client

package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/attest"
	"slipway/internal/ledger"
	"slipway/internal/registry"
)

// atATime is how many runs are forgotten together: deliveries wait for no more.
const atATime = 200

// forgetRuns removes runs from the ledger (nil: there is none) that ended so long ago
// (0: none), but those that a proof in the root's registry speaks of, and those that
// built what an environment needs.
func (g *globals) forgetRuns(ctx context.Context, l *ledger.Ledger, needed map[digest.Digest]bool, keep time.Duration) (n int, err error) {
	if l == nil || keep == 0 {
		return 0, nil
	}
	proven, err := g.provenRuns(ctx, l)
	if err != nil {
		return 0, err
	}
	before := time.Now().Add(-keep)
	for behind := int64(0); ; {
		old, err := l.OldRuns(ctx, before, behind, atATime)
		if err != nil || len(old) == 0 {
			return n, err
		}
		behind = old[len(old)-1].Seq
		var some []int64
		for _, r := range old {
			if !proven[r.ID] && !namesOne(r.Result, needed) {
				some = append(some, r.Seq)
			}
		}
		gone, err := l.ForgetRuns(ctx, some, before)
		if n += gone; err != nil {
			return n, err
		}
	}
}

// namesOne says whether one of the digests stands in a record.
func namesOne(record []byte, digests map[digest.Digest]bool) bool {
	for d := range digests {
		if strings.Contains(string(record), d.String()) {
			return true
		}
	}
	return false
}

// provenRuns are the runs that the proofs in the root's registry speak of.
func (g *globals) provenRuns(ctx context.Context, l *ledger.Ledger) (_ map[string]bool, err error) {
	proven := map[string]bool{}
	if _, err := os.Stat(imageStore(g.root)); err != nil {
		return proven, nil //nolint:nilerr // no store, no proof
	}
	images, err := g.images()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	names, err := images.Repositories(ctx)
	if err != nil {
		return nil, err
	}
	records, registries := map[string]bool{}, registry.Registries{Local: images}
	for _, name := range names {
		stored, err := images.Repository(name)
		if err != nil {
			return nil, err
		}
		all, err := stored.OfType(attest.MediaType)
		if err != nil {
			return nil, err
		}
		repo, err := registries.Repository(name)
		if err != nil {
			return nil, err
		}
		for _, d := range all {
			_, bundle, err := fetch(ctx, repo, d)
			if err != nil {
				return nil, err
			}
			for _, record := range attest.Runs(bundle) {
				records[record] = true
			}
		}
	}
	for record := range records {
		run, err := l.RunOf(ctx, record)
		if err != nil && !errors.Is(err, ledger.ErrNone) { // runs of this machine are in no ledger
			return nil, err
		}
		proven[run] = true
	}
	return proven, nil
}
