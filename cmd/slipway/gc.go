package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"slipway/internal/registry/local"
	"slipway/internal/volume"
)

func gcCommand(g *globals) *cobra.Command {
	var keep string
	var keepRuns int
	var all bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Free space: unused build cache over a size, superseded images, old runs",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVar(&keep, "keep", "", "how much build cache to keep, e.g. 20G (default: a tenth of the disk)")
	cmd.Flags().IntVar(&keepRuns, "keep-runs", 100, "how many runs to keep, with their logs")
	cmd.Flags().BoolVar(&all, "all", false, "keep no build cache; images stay")
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
		blobs, err := g.collectImages(ctx)
		if err != nil {
			return err
		}
		runs, err := s.store.DropRuns(max(0, keepRuns))
		if err != nil {
			return err
		}
		if g.json {
			return printJSON(os.Stdout, map[string]any{"freed_bytes": freed, "runs_removed": runs, "volumes_removed": volumes, "images_freed_bytes": blobs})
		}
		fmt.Printf("freed %s of build cache, removed %d runs and %d unused volume seeds\n", bytesText(freed), runs, volumes)
		if blobs > 0 {
			fmt.Printf("freed %s of blobs that no image has\n", bytesText(blobs))
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

// collectImages removes what no manifest of the image store names, a day after
// its last use. Manifests stay, with a tag or without: an environment may run them.
func (g *globals) collectImages(ctx context.Context) (int64, error) {
	if _, err := os.Stat(imageStore(g.root)); err != nil {
		return 0, nil //nolint:nilerr // no store, nothing to remove
	}
	images, err := g.images()
	if err != nil {
		return 0, err
	}
	c, err := images.Collect(ctx, local.Policy{})
	return c.Bytes, errors.Join(err, images.Close())
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
