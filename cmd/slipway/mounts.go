//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"slipway/internal/engine"
	"slipway/internal/volume"
	"slipway/pipeline"
	"slipway/runner"
)

// mountsVolumes reports whether a test of the plan, or a service beside it,
// mounts a named volume.
func mountsVolumes(plan pipeline.Plan) bool {
	for _, task := range plan.Tasks {
		if task.Kind != pipeline.TestTask || task.Skip != "" {
			continue
		}
		for _, v := range volumesOf(plan, task) {
			if !engine.Bind(v) {
				return true
			}
		}
	}
	return false
}

// mounts are those of one attempt at a test and the services beside it. A named
// volume is one directory to all of them, and what it begins with is what the
// first of them needs.
type mounts struct {
	wiring
	images map[string]pipeline.Image // of this pipeline, by task ID

	mu     sync.Mutex
	copies map[string]*volume.Copy // by the volume's name
}

func (w wiring) newMounts(images map[string]pipeline.Image) *mounts {
	return &mounts{wiring: w, images: images, copies: map[string]*volume.Copy{}}
}

// binds gives what a container of image mounts: directories of the repository
// as they are, and of each named volume the attempt's copy.
func (m *mounts) binds(ctx context.Context, volumes []pipeline.Volume, image pipeline.Image, o volume.CopyOptions) ([]runner.Bind, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var binds []runner.Bind
	for _, v := range volumes {
		b := runner.Bind{Source: filepath.Join(m.dir, filepath.FromSlash(v.Source)), Target: v.Target, ReadOnly: v.ReadOnly}
		if !engine.Bind(v) {
			c := m.copies[v.Source]
			if c == nil {
				var err error
				if c, err = m.copyOf(ctx, v, image, o); err != nil {
					return nil, fmt.Errorf("volume %s: %w", v.Source, err)
				}
				m.copies[v.Source] = c
			}
			b.Source = c.Dir
		}
		binds = append(binds, b)
	}
	return binds, nil
}

// release removes the copies. Sandboxes may still have them mounted.
func (m *mounts) release() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, c := range m.copies {
		errs = append(errs, c.Release())
	}
	return errors.Join(errs...)
}

// copyOf makes a copy of a named volume's seed, importing that when it changed.
func (m *mounts) copyOf(ctx context.Context, v pipeline.Volume, image pipeline.Image, o volume.CopyOptions) (*volume.Copy, error) {
	// Without a name in the store: two repositories may call different seeds the same.
	seed, err := m.seed(ctx, m.seeds[v.Source].From, v.Target, image)
	if err != nil {
		return nil, err
	}
	return m.volumes.Snapshot(ctx, seed.ID, o)
}

func (m *mounts) seed(ctx context.Context, from, target string, image pipeline.Image) (volume.Volume, error) {
	if ref, ok := strings.CutPrefix(from, "oci://"); ok {
		seed, received, err := pullVolume(ctx, m.volumes, "", ref, m.registries)
		if received > 0 {
			m.log.Info().Str("artifact", ref).Int64("bytes", received).Msg("pulled a volume")
		}
		return seed, err
	}
	if ref, ok := strings.CutPrefix(from, "image:"); ok {
		of, path, err := m.imageOf(ref)
		if err != nil {
			return volume.Volume{}, err
		}
		return m.volumes.Seed(ctx, "", volume.InImage(of.Descriptor.Digest, path, m.layers(of)))
	}
	if from != "" {
		return m.volumes.Seed(ctx, "", volume.Directory(m.dir, filepath.FromSlash(from)))
	}
	return m.volumes.Seed(ctx, "", volume.OverImage(image.Descriptor.Digest, target, m.layers(image)))
}

// imageOf reads "ID:/path" of a plan. An ID with a matrix may hold anything.
func (m *mounts) imageOf(ref string) (image pipeline.Image, path string, err error) {
	found := ""
	for id, of := range m.images {
		if rest, ok := strings.CutPrefix(ref, id+":"); ok && len(id) >= len(found) {
			found, image, path = id, of, rest
		}
	}
	if found == "" {
		return image, "", fmt.Errorf("no image of this run is image:%s", ref)
	}
	return image, path, nil
}

// layers lends those of exactly this image.
func (w wiring) layers(image pipeline.Image) volume.Layers {
	return func(ctx context.Context) ([]string, func() error, error) {
		r, err := w.builder.Rootfs(ctx, image, "")
		return r.Lowers, r.Release, err
	}
}
