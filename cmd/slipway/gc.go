package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"slipway/internal/git"
	"slipway/internal/registry/local"
	"slipway/internal/volume"
	"slipway/promote"
)

func gcCommand(g *globals) *cobra.Command {
	var keep string
	var keepRuns int
	var keepImages time.Duration
	var environments environmentFlags
	var all bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Free space: unused build cache over a size, images that nothing names, old runs",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVar(&keep, "keep", "", "how much build cache to keep, e.g. 20G (default: a tenth of the disk)")
	cmd.Flags().IntVar(&keepRuns, "keep-runs", 100, "how many runs to keep, with their logs")
	cmd.Flags().DurationVar(&keepImages, "keep-images", 30*24*time.Hour, "how long to keep images that no tag and no environment names, and what environments ran before")
	cmd.Flags().BoolVar(&all, "all", false, "keep no build cache; images stay")
	environments.registerRepository(cmd.Flags())
	cmd.RunE = g.withBuilder("slipway gc", func(ctx context.Context, s *stack, _ []string) error {
		bytes, err := keepBytes(keep, all)
		if err != nil {
			return err
		}
		freed, err := s.builder.Prune(ctx, bytes)
		if err != nil {
			return err
		}
		if freed > 0 {
			if err := s.store.Pruned(); err != nil {
				return fmt.Errorf("forget what was pruned: %w", err)
			}
		}
		volumes, err := g.pruneVolumes(ctx)
		if err != nil {
			return err
		}
		images, err := g.collectImages(ctx, environments, keepImages)
		if err != nil {
			return err
		}
		runs, err := s.store.DropRuns(max(0, keepRuns))
		if err != nil {
			return err
		}
		if g.json {
			return printJSON(os.Stdout, map[string]any{"freed_bytes": freed, "runs_removed": runs, "volumes_removed": volumes, "images_removed": images.Manifests, "images_freed_bytes": images.Bytes})
		}
		fmt.Printf("freed %s of build cache, removed %d runs and %d unused volume seeds\n", bytesText(freed), runs, volumes)
		if images != (local.Collected{}) {
			fmt.Printf("removed %d images and proofs that nothing names, and freed %s of what only they had\n", images.Manifests, bytesText(images.Bytes))
		}
		return nil
	})
	return cmd
}

// unusedSeed is how long a volume's seed is kept for the next run that mounts it.
const unusedSeed = 30 * 24 * time.Hour

// pruneVolumes removes seeds that no run has mounted for long. It makes no store.
func (g *globals) pruneVolumes(ctx context.Context) (int, error) {
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
// not touched for so long, and that no environment runs or may be brought back to;
// then what no manifest has, a day after its last use. Where the environments
// cannot be read nothing is removed: one may run any of them.
func (g *globals) collectImages(ctx context.Context, f environmentFlags, keep time.Duration) (c local.Collected, err error) {
	if _, err := os.Stat(imageStore(g.root)); err != nil {
		return c, nil //nolint:nilerr // no store, nothing to remove
	}
	needed, err := g.neededImages(ctx, f, time.Now().Add(-keep))
	if err != nil {
		return c, fmt.Errorf("no image was removed, because an environment may need it: %w", err)
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

// neededImages asks the environments, and the log of what this root promoted.
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
