package builder

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/pipeline"
)

// Rootfs is the file system of one image as plain directories, for an overlay
// that the caller mounts. They are shared and must never be written to.
type Rootfs struct {
	Lowers  []string // topmost first, as overlayfs's lowerdir wants them; at least one
	Config  ocispec.ImageConfig
	Health  *pipeline.Healthcheck // HEALTHCHECK of its Dockerfile; nil: none
	Release func() error          // gives the directories back; call it once, after unmounting
	// Pin lends them beyond this process, until Unpin of that name. It is called
	// before Release.
	Pin func(ctx context.Context, name string) error
}

// lent is a file system that somebody has: who wants the same has it at once.
type lent struct {
	mu    sync.Mutex // held while it is found
	fs    Rootfs
	users int // under the builder's lock
}

// Rootfs lends the file system of exactly this digest: the directories are
// found by the digests of the layers in the image's manifest, never by a name.
// What the build left on disk is used as it is; what is only in the store as
// blobs is unpacked first. platform is "" for this machine's.
func (b *Builder) Rootfs(ctx context.Context, img pipeline.Image, platform string) (Rootfs, error) {
	key := img.Descriptor.Digest.String() + " " + platform
	b.lending.Lock()
	l := b.lent[key]
	if l == nil {
		l = &lent{}
		b.lent[key] = l
	}
	l.users++
	b.lending.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fs.Release == nil {
		fs, err := b.rootfs(ctx, img, platform)
		if err != nil {
			b.last(key, l)
			return Rootfs{}, err
		}
		l.fs = fs
	}
	out := l.fs
	out.Release = func() error {
		if !b.last(key, l) {
			return nil
		}
		return l.fs.Release()
	}
	return out, nil
}

// last takes one user off, and says whether it was the last.
func (b *Builder) last(key string, l *lent) bool {
	b.lending.Lock()
	defer b.lending.Unlock()
	if l.users--; l.users > 0 {
		return false
	}
	delete(b.lent, key)
	return true
}

func (b *Builder) rootfs(ctx context.Context, img pipeline.Image, platform string) (Rootfs, error) {
	all, err := b.manifests(ctx, img.Descriptor)
	if err != nil {
		return Rootfs{}, err
	}
	m, err := pick(all, platform)
	if err != nil {
		return Rootfs{}, fmt.Errorf("image %s: %w", img.Descriptor.Digest, err)
	}
	if len(m.manifest.Layers) == 0 {
		return Rootfs{}, fmt.Errorf("image %s has no files at all; add something to it", m.desc.Digest)
	}
	ref, err := b.chain(ctx, m)
	if err != nil {
		return Rootfs{}, fmt.Errorf("image %s: %w", m.desc.Digest, err)
	}
	release := func() error { return ref.Release(context.WithoutCancel(ctx)) }
	lowers, unview, err := view(ctx, ref)
	if err != nil {
		return Rootfs{}, errors.Join(fmt.Errorf("image %s: %w", m.desc.Digest, err), release())
	}
	return Rootfs{
		Lowers: lowers, Config: m.config.Config, Health: health(m.docker.Healthcheck),
		Release: func() error { return errors.Join(unview(), release()) },
		Pin:     func(ctx context.Context, name string) error { return b.pin(ctx, ref.ID(), name) },
	}, nil
}

// health is what an image's configuration says, in the pipeline's words.
func health(h *dockerspec.HealthcheckConfig) *pipeline.Healthcheck {
	if h == nil {
		return nil
	}
	return &pipeline.Healthcheck{
		Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, Retries: h.Retries, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval,
	}
}

// chain finds the cache record of the image's layers, one upon the other.
func (b *Builder) chain(ctx context.Context, m manifest) (cache.ImmutableRef, error) {
	var top cache.ImmutableRef
	for i, l := range m.manifest.Layers {
		l.Annotations = map[string]string{labels.LabelUncompressed: m.config.RootFS.DiffIDs[i].String()}
		next, err := b.engine.worker.CacheMgr.GetByBlob(ctx, l, top)
		if top != nil {
			err = errors.Join(err, top.Release(context.WithoutCancel(ctx)))
		}
		if err != nil {
			if next != nil {
				err = errors.Join(err, next.Release(context.WithoutCancel(ctx)))
			}
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		top = next
	}
	return top, nil
}

// view gives the directories a read-only mount of ref consists of.
func view(ctx context.Context, ref cache.ImmutableRef) (lowers []string, release func() error, err error) {
	if err := ref.Finalize(ctx); err != nil {
		return nil, nil, err
	}
	var nobody session.Group // nothing is fetched: every blob is here
	mountable, err := ref.Mount(ctx, true, nobody)
	if err != nil {
		return nil, nil, err
	}
	mounts, release, err := mountable.Mount()
	if err != nil {
		return nil, nil, err
	}
	if release == nil {
		release = func() error { return nil }
	}
	if lowers, err = lowerDirs(mounts); err != nil {
		return nil, nil, errors.Join(err, release())
	}
	return lowers, release, nil
}

func lowerDirs(mounts []mount.Mount) ([]string, error) {
	if len(mounts) != 1 {
		return nil, fmt.Errorf("a snapshot of %d mounts", len(mounts))
	}
	m := mounts[0]
	if m.Type == "bind" || m.Type == "rbind" {
		return []string{m.Source}, nil
	}
	for _, o := range m.Options {
		if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok && m.Type == "overlay" {
			return strings.Split(dirs, ":"), nil
		}
	}
	return nil, fmt.Errorf("a snapshot that is no overlay but %q", m.Type)
}
