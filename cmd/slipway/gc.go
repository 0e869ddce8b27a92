//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"slipway/internal/git"
	"slipway/internal/ledger"
	"slipway/internal/registry/local"
	"slipway/internal/server"
	"slipway/internal/store"
	"slipway/internal/volume"
	"slipway/promote"
)

// retentionFlags say what a root keeps of what may go.
type retentionFlags struct {
	cache                   string
	keptRuns                int
	runsFor, images, ledger time.Duration
}

func (f *retentionFlags) register(fs *pflag.FlagSet, runs int) {
	fs.StringVar(&f.cache, "keep", "", "how much build cache to keep, e.g. 20G (default: a tenth of the disk)")
	fs.IntVar(&f.keptRuns, "keep-runs", runs, "how many runs to keep, with their logs and artifacts")
	fs.DurationVar(&f.runsFor, "keep-runs-for", 0, "how long to keep them at most, e.g. 2160h (default: without an end)")
	fs.DurationVar(&f.images, "keep-images", 30*24*time.Hour, "how long to keep images that no tag and no environment names, and what environments ran before")
	fs.DurationVar(&f.ledger, "keep-ledger", 365*24*time.Hour, "how long the ledger keeps runs that have ended, and that no proof and no environment refers to; 0: for ever")
}

func (f retentionFlags) retention(all bool) (server.Retention, error) {
	bytes, err := keepBytes(f.cache, all)
	how := server.Retention{Cache: bytes, Runs: f.keptRuns, RunsFor: int64(f.runsFor.Seconds()), ImagesFor: int64(f.images.Seconds()), LedgerFor: int64(f.ledger.Seconds())}
	return how, errors.Join(err, asUsage(how.Check()))
}

func gcCommand(g *globals) *cobra.Command {
	var f retentionFlags
	var environments environmentFlags
	var at serverFlags
	var database ledgerFlags
	var all bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Free space: unused build cache over a size, images that nothing names, old runs",
		Long:  "Frees space in the root. Where a server serves it, that does it, once nothing runs, by its own\nrules but for those that are given here.",
		Args:  cobra.NoArgs,
	}
	f.register(cmd.Flags(), 100)
	cmd.Flags().BoolVar(&all, "all", false, "keep no build cache; images stay")
	environments.registerRepository(cmd.Flags())
	at.register(cmd.Flags())
	database.register(cmd.Flags())
	here := func(ctx context.Context, s *stack, how server.Retention) error {
		l, err := g.ledgerHere(ctx, database)
		if err != nil {
			return err
		}
		got, err := g.collect(ctx, s, how, environments, l)
		if l != nil {
			err = errors.Join(err, l.Close())
		}
		return errors.Join(g.showCollected(got), err)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		how, err := f.retention(all)
		if err != nil {
			return err
		}
		c, err := at.client(g)
		if err != nil {
			return err
		}
		if c == nil {
			s, err := g.open(cmd.Context(), openOptions{command: "slipway gc"})
			if err != nil {
				return err
			}
			return errors.Join(here(cmd.Context(), s, how), s.close())
		}
		asked := map[string]any{}
		for flag, field := range map[string]struct {
			name  string
			value any
		}{
			"keep": {"keep_cache_bytes", how.Cache}, "all": {"keep_cache_bytes", how.Cache}, "keep-runs": {"keep_runs", how.Runs},
			"keep-runs-for": {"keep_runs_seconds", how.RunsFor}, "keep-images": {"keep_images_seconds", how.ImagesFor},
			"keep-ledger": {"keep_ledger_seconds", how.LedgerFor},
		} {
			if cmd.Flags().Changed(flag) {
				asked[field.name] = field.value
			}
		}
		var got server.Collected
		if err := c.ask(cmd.Context(), http.MethodPost, "/api/v1/gc", asked, &got); err != nil {
			return err
		}
		return g.showCollected(got)
	}
	return cmd
}

// ledgerHere opens the ledger of this root; nil: there is none.
func (g *globals) ledgerHere(ctx context.Context, f ledgerFlags) (*ledger.Ledger, error) {
	if _, err := os.Stat(filepath.Join(g.root, "server", "ledger.key")); err != nil {
		return nil, nil //nolint:nilerr,nilnil // nothing has been served here
	}
	return g.openLedger(ctx, f)
}

func (g *globals) showCollected(got server.Collected) error {
	if g.json {
		return printJSON(os.Stdout, got)
	}
	fmt.Printf("freed %s of build cache, removed %d runs and %d unused volume seeds\n", bytesText(got.CacheBytes), got.Runs, got.Volumes)
	if got.Images > 0 || got.ImagesBytes > 0 {
		fmt.Printf("removed %d images and proofs that nothing names, and freed %s of what only they had\n", got.Images, bytesText(got.ImagesBytes))
	}
	if got.Mirrors > 0 {
		fmt.Printf("removed %d mirrors of repositories; what runs need of them is fetched again\n", got.Mirrors)
	}
	if got.Forgotten > 0 {
		fmt.Printf("removed %d runs from the ledger\n", got.Forgotten)
	}
	return nil
}

// collect frees space in an opened root while nothing runs. What one part cannot do
// does not keep the others from theirs. The ledger may be nil.
func (g *globals) collect(ctx context.Context, s *stack, how server.Retention, environments environmentFlags, l *ledger.Ledger) (got server.Collected, err error) {
	got.CacheBytes, err = s.builder.Prune(ctx, how.Cache)
	if err == nil && got.CacheBytes > 0 {
		if err = s.store.Pruned(); err != nil {
			err = fmt.Errorf("forget what was pruned: %w", err)
		}
	}
	errs := []error{err}
	got.Volumes, err = g.pruneVolumes(ctx, s.volumes)
	errs = append(errs, err)
	needed, err := g.neededImages(ctx, environments, time.Now().Add(-time.Duration(how.ImagesFor)*time.Second))
	if err != nil {
		errs = append(errs, fmt.Errorf("no image and no run of the ledger was removed, because an environment may need it: %w", err))
	} else {
		images, err := g.collectImages(ctx, needed, time.Duration(how.ImagesFor)*time.Second)
		got.Images, got.ImagesBytes = images.Manifests, images.Bytes
		errs = append(errs, err)
		got.Forgotten, err = g.forgetRuns(ctx, l, needed, time.Duration(how.LedgerFor)*time.Second)
		errs = append(errs, err)
	}
	got.Runs, err = dropRuns(ctx, s.store, how, l)
	errs = append(errs, err)
	got.Mirrors, err = g.clearMirrors(ctx, l)
	return got, errors.Join(append(errs, err)...)
}

// dropRuns removes old runs, but for those whose failed tests are kept. The ledger hears of it first: a run whose log is gone
// and that says nothing of it would look like one that said nothing.
func dropRuns(ctx context.Context, s *store.Store, how server.Retention, l *ledger.Ledger) (n int, err error) {
	now, before := time.Now(), time.Time{}
	if how.RunsFor > 0 {
		before = now.Add(-time.Duration(how.RunsFor) * time.Second)
	}
	old, err := s.OldRuns(how.Runs, before)
	if err != nil {
		return 0, err
	}
	kept, err := s.AllKept()
	old = slices.DeleteFunc(old, func(id string) bool {
		return slices.ContainsFunc(kept, func(k store.Kept) bool { return strings.HasPrefix(k.Name, id+"/") })
	})
	if err == nil && l != nil {
		err = l.Removed(ctx, old, now)
	}
	if err != nil {
		return 0, err
	}
	for n, id := range old {
		if err := s.DropRun(id); err != nil {
			return n, err
		}
	}
	return len(old), nil
}

// manyPacks is how many fetches a mirror holds before it is begun anew: each left a
// pack, all of which are looked into for each object.
const manyPacks = 100

// clearMirrors removes mirrors that have grown, and those of repositories that are gone.
func (g *globals) clearMirrors(ctx context.Context, l *ledger.Ledger) (n int, err error) {
	dir := filepath.Join(g.root, "mirrors")
	entries, err := os.ReadDir(dir)
	if l == nil || errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	for _, e := range entries {
		m := git.NewMirror(filepath.Join(dir, e.Name()), git.Limits{})
		packs, err := m.Packs()
		if err != nil {
			return n, err
		}
		_, err = l.Repo(ctx, e.Name())
		switch {
		case errors.Is(err, ledger.ErrNone):
			err = errors.Join(os.RemoveAll(filepath.Join(dir, e.Name())), os.RemoveAll(filepath.Join(g.root, "server", "seen", e.Name()+".json")))
		case err != nil || packs <= manyPacks:
			if err != nil {
				return n, err
			}
			continue
		default:
			err = m.Clear(ctx)
		}
		if err != nil {
			return n, err
		}
		n++
	}
	return n, err
}

// unusedSeed is how long a volume's seed is kept for the next run that mounts it.
const unusedSeed = 30 * 24 * time.Hour

// pruneVolumes removes seeds that no run has mounted for long, from an open store
// (nil: from the root's). It makes no store.
func (g *globals) pruneVolumes(ctx context.Context, open *volume.Store) (int, error) {
	if open != nil {
		removed, err := open.Prune(ctx, unusedSeed)
		return len(removed), err
	}
	if _, err := os.Stat(filepath.Join(g.root, "volumes")); err != nil {
		return 0, nil //nolint:nilerr // no volumes, nothing to remove
	}
	store, err := volume.Open(ctx, volume.Options{Root: g.root, Log: g.log})
	if err != nil {
		return 0, err
	}
	removed, err := store.Prune(ctx, unusedSeed)
	return len(removed), errors.Join(err, store.Close())
}

// collectImages removes manifests of the image store that no tag names, that were
// not touched for so long, and that no environment needs; then what no manifest has,
// a day after its last use.
func (g *globals) collectImages(ctx context.Context, needed map[digest.Digest]bool, keep time.Duration) (c local.Collected, err error) {
	if _, err := os.Stat(imageStore(g.root)); err != nil {
		return c, nil //nolint:nilerr // no store, nothing to remove
	}
	images, err := g.images()
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	grace := keep
	if grace <= 0 {
		grace = -1 // at once
	}
	c, err = images.Collect(ctx, local.Policy{Untagged: true, Grace: grace, Keep: func(_ string, d digest.Digest) bool { return needed[d] }})
	if err != nil {
		return c, err
	}
	loose, err := images.Collect(ctx, local.Policy{})
	c.Blobs, c.Bytes = c.Blobs+loose.Blobs, c.Bytes+loose.Bytes
	return c, err
}

// neededImages asks the environments, and the log of what this root promoted. Where
// they cannot be read nothing may be removed: one may run any image.
func (g *globals) neededImages(ctx context.Context, f environmentFlags, since time.Time) (map[digest.Digest]bool, error) {
	access, err := f.access(g)
	if err != nil {
		return nil, err
	}
	repo, err := git.At(f.home(g), access)
	if err != nil {
		return nil, usageError{err}
	}
	p := promote.Promoter{Dir: promotionsDir(g.root), Environments: promote.Environments{Repository: repo, Branch: f.branch}}
	return p.Needed(ctx, since)
}

// keepBytes reads --keep; negative asks for the builder's own policy.
func keepBytes(keep string, all bool) (int64, error) {
	if all {
		return 0, nil
	}
	if keep == "" {
		return -1, nil
	}
	n, err := units.RAMInBytes(keep)
	if err != nil {
		return 0, usagef("--keep %s: write a size such as 500M or 20G", keep)
	}
	return n, nil
}
