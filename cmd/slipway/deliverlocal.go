//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"

	"slipway/internal/layers"
	"slipway/internal/registry"
	"slipway/internal/supervise"
	"slipway/internal/volume"
	"slipway/pipeline"
	"slipway/promote"
)

// localDelivery is `deliver: {local: …}`: containers of this root's supervisor.
type localDelivery struct {
	*globals
	registries *registry.Registries
}

// Check implements promote.Deliverer.
func (l localDelivery) Check(_ context.Context, d promote.Delivery) error {
	if err := mustBeRoot(); err != nil {
		return err
	}
	spec, err := l.spec(d)
	if err != nil {
		return err
	}
	return spec.Check()
}

// spec is what the supervisor is to run.
func (l localDelivery) spec(d promote.Delivery) (supervise.Spec, error) {
	spec := supervise.Spec{Project: d.Environment, Of: "environment " + d.Environment, Promotion: d.Promotion}
	local, err := supervise.ParseLocal(d.Config)
	if err != nil {
		return spec, err
	}
	var images []supervise.Delivered
	for _, im := range d.Images {
		if im.Digest != "" {
			images = append(images, supervise.Delivered{Name: im.Name, Repository: im.Repository, Digest: im.Digest})
		} else {
			delete(local.Images, im.Name) // it is not to run yet
		}
	}
	spec.Containers, err = local.Containers(images, supervise.Plugs{Environment: d.Variables, Secrets: d.Secrets, File: d.Beside})
	return spec, err
}

// Deliver implements promote.Deliverer.
func (l localDelivery) Deliver(ctx context.Context, d promote.Delivery, out io.Writer) error {
	spec, err := l.spec(d)
	if err != nil {
		return err
	}
	if err := l.prepareAll(ctx, spec); err != nil {
		return err
	}
	c, err := l.supervisor(ctx)
	if err != nil {
		return err
	}
	return c.Apply(ctx, spec, func(step string) { fmt.Fprintln(out, step) })
}

// prepareAll brings what the containers run on to where the supervisor finds it.
// The builder's store, which unpacks what was never run here, is opened only
// where something is missing; where a server serves the root, it has it open.
func (l localDelivery) prepareAll(ctx context.Context, spec supervise.Spec) (err error) {
	if l.held == nil {
		c, err := serverFlags{}.client(l.globals)
		if err != nil {
			return err
		}
		if c != nil {
			_, err := prepareSpec(false).ask(ctx, c, spec.Grounds(), os.Stderr)
			return err
		}
	}
	s := l.held
	open := func() (*stack, error) {
		if s == nil {
			s, err = l.open(ctx, openOptions{command: "slipway promote", volumes: true})
		}
		return s, err
	}
	defer func() {
		if s != l.held {
			err = errors.Join(err, s.close())
		}
	}()
	for _, c := range spec.Containers {
		if err := l.prepare(ctx, spec.Project, c, open); err != nil {
			return fmt.Errorf("image %s: %w", c.Name, err)
		}
	}
	return nil
}

func (l localDelivery) prepare(ctx context.Context, project string, c supervise.Container, open func() (*stack, error)) error {
	_, err := layers.Find(supervise.LayersDir(l.liveDir()), c.Digest)
	var missing []supervise.Mount
	for _, m := range c.Mounts {
		if m.Volume != "" && !exists(supervise.VolumeDir(l.liveDir(), project, m.Volume)) {
			missing = append(missing, m)
		}
	}
	if err == nil && len(missing) == 0 {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s, err := open()
	if err != nil {
		return err
	}
	image, err := l.take(ctx, s, c)
	if err != nil {
		return err
	}
	if _, err := s.keepLayers(ctx, l.liveDir(), image); err != nil {
		return err
	}
	for _, m := range missing {
		w := wiring{stack: s, registries: l.registries, log: l.log}
		err := w.fillVolume(ctx, supervise.VolumeDir(l.liveDir(), project, m.Volume), volume.OverImage(image.Descriptor.Digest, m.Target, w.layers(image)))
		if err != nil {
			return fmt.Errorf("volume %s: %w", m.Volume, err)
		}
	}
	return nil
}

// take finds exactly that digest in the builder's store, or fetches it from the
// repository that the environment names.
func (l localDelivery) take(ctx context.Context, s *stack, c supervise.Container) (pipeline.Image, error) {
	if image, err := s.builder.Lookup(ctx, c.Digest.String()); err == nil {
		return image, nil
	}
	repo, desc, err := l.registries.Open(ctx, c.Repository+"@"+c.Digest.String())
	if err != nil {
		return pipeline.Image{}, err
	}
	return s.builder.Take(ctx, "slipway.local/"+c.Name, desc, repo.Blob)
}

// Status implements promote.Deliverer.
func (l localDelivery) Status(ctx context.Context, d promote.Delivery) (promote.Status, error) {
	projects, err := supervise.Dial(l.liveDir()).Status(ctx)
	if errors.Is(err, supervise.ErrNotRunning) {
		projects, err = nil, nil // then nothing runs
	}
	if err != nil {
		return promote.Status{}, err
	}
	running := map[string]supervise.ContainerStatus{}
	for _, p := range projects {
		if p.Project == d.Environment {
			for _, c := range p.Containers {
				running[c.Name] = c
			}
		}
	}
	st := promote.Status{Known: true}
	for _, im := range d.Images {
		c, ok := running[im.Name]
		delete(running, im.Name)
		switch {
		case ok:
			st.Images = append(st.Images, promote.ImageStatus{Name: im.Name, Digest: runningDigest(c), State: wordFor(c.State), Detail: c.Reason})
		case im.Digest != "":
			st.Images = append(st.Images, promote.ImageStatus{Name: im.Name, State: "stopped"})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(running)) { // what the environment does not name any more
		c := running[name]
		st.Images = append(st.Images, promote.ImageStatus{Name: name, Digest: runningDigest(c), State: wordFor(c.State), Detail: c.Reason})
	}
	return st, nil
}

func runningDigest(c supervise.ContainerStatus) digest.Digest {
	if c.State == supervise.StateEnded || c.State == supervise.StateStopped {
		return ""
	}
	return digest.Digest(c.Digest)
}

// wordFor is promote's word for a container's state.
func wordFor(s supervise.State) string {
	switch s {
	case supervise.StateUp, supervise.StateHealthy:
		return "running"
	case supervise.StateUnhealthy:
		return "unhealthy"
	case supervise.StateRestarting:
		return "starting"
	default:
		return "stopped"
	}
}
