package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/buildkit/client"
	"golang.org/x/sys/unix"
)

// Usage is what the store takes on disk, in bytes.
type Usage struct {
	Blobs     int64 // compressed layers, manifests, configurations
	Snapshots int64 // unpacked layers, contexts, cache mounts
}

// Total is all of it.
func (u Usage) Total() int64 { return u.Blobs + u.Snapshots }

// keepBytes is the size to keep to: as asked, or a tenth of the disk.
func keepBytes(o Options) int64 {
	if o.KeepBytes > 0 {
		return o.KeepBytes
	}
	var st unix.Statfs_t
	if err := unix.Statfs(o.Root, &st); err != nil {
		return 10 << 30
	}
	return max(2<<30, int64(st.Blocks)*st.Bsize/10)
}

// gcPolicy is what BuildKit enforces by itself while a builder stays open.
func gcPolicy(o Options) []client.PruneInfo {
	keep := keepBytes(o)
	return []client.PruneInfo{
		// Contexts and cache mounts are cheap to make again.
		{Filter: []string{"type==source.local,type==exec.cachemount,type==source.git.checkout"}, KeepDuration: 7 * 24 * time.Hour, MaxUsedSpace: keep / 4},
		{MaxUsedSpace: keep},
		{All: true, MaxUsedSpace: keep},
	}
}

// DiskUsage measures the store.
func (b *Builder) DiskUsage(ctx context.Context) (u Usage, err error) {
	err = b.engine.content.Walk(ctx, func(i content.Info) error {
		u.Blobs += i.Size
		return nil
	})
	if err != nil {
		return u, err
	}
	ctx = inNamespace(ctx)
	var keys []string
	err = b.engine.snapshotter.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		keys = append(keys, i.Name)
		return nil
	})
	if err != nil {
		return u, err
	}
	for _, k := range keys {
		// One that went away meanwhile takes no space.
		if s, err := b.engine.snapshotter.Usage(ctx, k); err == nil {
			u.Snapshots += s.Size
		}
	}
	return u, nil
}

// Prune brings the store down to keep bytes and says how many it freed. First
// go built images that a newer one of the same name replaced, then build cache,
// least used first. The newest image of each name, imported images and whatever
// is in use stay, even above keep. A negative keep is Options.KeepBytes.
func (b *Builder) Prune(ctx context.Context, keep int64) (freed int64, err error) {
	if keep < 0 {
		keep = keepBytes(b.o)
	}
	// What failed builds left has no record any more, only space.
	if _, err := b.engine.db.GarbageCollect(ctx); err != nil {
		return 0, err
	}
	before, err := b.DiskUsage(ctx)
	if err != nil {
		return 0, err
	}
	if keep > 0 && before.Total() <= keep {
		return 0, nil
	}
	if err := b.dropSuperseded(ctx); err != nil {
		return 0, err
	}
	local := b.client
	if b.o.Remote != nil {
		if local, err = b.engine.dial(ctx); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, local.Close()) }()
	}
	opts := []client.PruneOption{client.PruneAll}
	if keep > 0 {
		opts = append(opts, client.WithKeepOpt(0, 0, keep, 0))
	}
	if err := local.Prune(ctx, nil, opts...); err != nil {
		return 0, fmt.Errorf("prune the build cache: %w", err)
	}
	if _, err := b.engine.db.GarbageCollect(ctx); err != nil {
		return 0, err
	}
	after, err := b.DiskUsage(ctx)
	return max(0, before.Total()-after.Total()), err
}

// dropSuperseded takes the names from built images that are not the newest of theirs.
func (b *Builder) dropSuperseded(ctx context.Context) error {
	all, err := b.Images(ctx)
	if err != nil {
		return err
	}
	for _, img := range all {
		if img.Imported || img.Current {
			continue
		}
		if err := b.engine.images.Delete(ctx, builtName(img.Name)+"@"+img.Descriptor.Digest.String()); err != nil {
			return err
		}
	}
	return nil
}

const (
	tidyEvery   = time.Hour
	tidyTimeout = 5 * time.Second
)

// tidy is the automatic Prune of a builder that is about to close: BuildKit's
// own waits for a quiet minute, which a command never has. It looks once an hour.
func (b *Builder) tidy() error {
	mark := filepath.Join(b.o.Root, "tidied")
	fi, err := os.Stat(mark)
	if err == nil && time.Since(fi.ModTime()) < tidyEvery {
		return nil
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return err
	}
	if fi == nil { // a new store has nothing to tidy
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), tidyTimeout)
	defer cancel()
	_, err = b.Prune(ctx, keepBytes(b.o))
	return err
}
