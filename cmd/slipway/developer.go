//go:build linux && !client

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/internal/engine"
	"slipway/internal/layers"
	"slipway/internal/supervise"
	"slipway/internal/volume"
	"slipway/pipeline"
)

// developer makes containers of a plan's images and services.
type developer struct {
	*globals
	wiring
	mounts  *mounts
	built   map[string]pipeline.Image
	project string
	out     io.Writer // takes what is to be told
}

// service is a container of a service.
func (d developer) service(ctx context.Context, s pipeline.Service) (supervise.Container, error) {
	image, ours := d.built[strings.TrimPrefix(s.Image, "image:")]
	if !ours {
		got, err := d.fetch(ctx, s.Image)
		if err == nil && got.Failure != "" {
			err = usagef("service %s: %s", s.Name, got.Failure)
		}
		if err != nil {
			return supervise.Container{}, err
		}
		image = got.Image
	}
	env, err := serviceEnvironment(d.dir, s)
	if err != nil {
		return supervise.Container{}, usageError{err}
	}
	c := supervise.Container{Name: s.Name, Repository: image.Repository, Digest: image.Descriptor.Digest, Service: s}
	c.Service.Environment, c.Service.EnvFile, c.Service.Volumes, c.Service.Image = env, nil, nil, ""
	c.Service.DependsOn = nil
	for key, condition := range s.DependsOn {
		if c.Service.DependsOn == nil {
			c.Service.DependsOn = map[string]string{}
		}
		name, _, _ := strings.Cut(key, "[")
		c.Service.DependsOn[name] = condition
		if condition == "service_completed_successfully" {
			return c, usagef("service %s waits for %s to complete: a development set has no one-off services yet", s.Name, name)
		}
	}
	for _, v := range s.Volumes {
		m := supervise.Mount{Target: v.Target, ReadOnly: v.ReadOnly}
		if engine.Bind(v) {
			m.Source = filepath.Join(d.dir, filepath.FromSlash(v.Source))
		} else {
			m.Volume = v.Source
		}
		c.Mounts = append(c.Mounts, m)
	}
	_, err = d.keep(ctx, image, c)
	return c, err
}

// images are the containers of the pipeline's own images.
func (d developer) images(ctx context.Context, set setOf, env development, publish []string) ([]supervise.Container, error) {
	published, err := publishedBy(publish)
	if err != nil {
		return nil, err
	}
	local, err := supervise.ParseLocal(env.Deliver.Config)
	if err != nil {
		return nil, usageError{err}
	}
	if env.Deliver.Kind != "local" {
		local = supervise.Local{}
	}
	var delivered []supervise.Delivered
	images := map[string]pipeline.Image{}
	for _, task := range set.images {
		name := containerName(task)
		images[name] = d.built[task.ID]
		delivered = append(delivered, supervise.Delivered{Name: name, Repository: images[name].Repository, Digest: images[name].Descriptor.Digest})
	}
	containers, err := local.Containers(delivered, supervise.Plugs{
		Environment: env.Environment.Environment, Secrets: env.Secrets,
		File: func(name string) ([]byte, error) {
			return os.ReadFile(filepath.Join(env.dir, filepath.FromSlash(name)))
		},
	})
	if err != nil {
		return nil, usageError{err}
	}
	var run []supervise.Container
	for _, c := range containers {
		kept, err := d.keep(ctx, images[c.Name], c)
		if err != nil {
			return nil, err
		}
		if len(kept.Config.Entrypoint)+len(kept.Config.Cmd)+len(c.Service.Command) == 0 {
			fmt.Fprintf(d.out, "slipway: %s has no command, and is not run\n", c.Name)
			continue
		}
		for _, key := range set.services {
			if c.Service.DependsOn == nil {
				c.Service.DependsOn = map[string]string{}
			}
			name, _, _ := strings.Cut(key, "[")
			c.Service.DependsOn[name] = "service_healthy"
		}
		if ports, ok := published[c.Name]; ok {
			c.Ports = ports
			delete(published, c.Name)
		} else if len(c.Ports) == 0 {
			c.Ports = d.exposed(c.Name, kept)
		}
		run = append(run, c)
	}
	for name := range published {
		return nil, usagef("--publish %s=…: no such image runs", name)
	}
	return run, nil
}

// containerName is an image's name, with its matrix values.
func containerName(task pipeline.Task) string {
	name := task.Image
	for _, key := range slices.Sorted(maps.Keys(task.Matrix)) {
		name += "-" + task.Matrix[key]
	}
	return strings.Trim(notInNames.ReplaceAllString(strings.ToLower(name), "-"), "-")
}

func publishedBy(texts []string) (map[string][]supervise.Port, error) {
	all := map[string][]supervise.Port{}
	for _, text := range texts {
		name, rest, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usagef("--publish %s: write IMAGE=HOST:CONTAINER, such as web=8080:80", text)
		}
		port, err := supervise.ParsePort(rest)
		if err != nil {
			return nil, usageError{err}
		}
		all[name] = append(all[name], port)
	}
	return all, nil
}

// exposed publishes what an image exposes on the loopback: at the same port where
// that is free or was this project's before, else at any.
func (d developer) exposed(name string, k layers.Kept) []supervise.Port {
	var before []supervise.Port
	if saved, err := supervise.Saved(d.liveDir(), d.project); err == nil {
		for _, c := range saved.Containers {
			if c.Name == name {
				before = c.Ports
			}
		}
	}
	var ports []supervise.Port
	for _, text := range slices.Sorted(maps.Keys(k.Config.ExposedPorts)) {
		number, protocol, _ := strings.Cut(text, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || protocol != "" && protocol != "tcp" {
			continue
		}
		port := supervise.Port{Container: uint16(n)}
		if i := slices.IndexFunc(before, func(p supervise.Port) bool { return p.Container == port.Container }); i >= 0 {
			port.Host = before[i].Host
		} else if port.Host = freeAddressAt(number); port.Host == "" {
			port.Host = freeAddressAt("0")
		}
		ports = append(ports, port)
	}
	return ports
}

// freeAddressAt is an address of the loopback where nobody listens; empty where
// somebody does at that port.
func freeAddressAt(port string) string {
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return ""
	}
	defer l.Close()
	return l.Addr().String()
}

// keep makes the layers of a container's image outlive the build cache, and its
// volumes begin as their seeds.
func (d developer) keep(ctx context.Context, image pipeline.Image, c supervise.Container) (layers.Kept, error) {
	kept, err := d.keepLayers(ctx, d.liveDir(), image)
	if err != nil {
		return kept, err
	}
	for _, m := range c.Mounts {
		if m.Volume == "" {
			continue
		}
		if err := d.fill(ctx, supervise.VolumeDir(d.liveDir(), d.project, m.Volume), d.seeds[m.Volume].From, m.Target, image); err != nil {
			return kept, fmt.Errorf("volume %s: %w", m.Volume, err)
		}
	}
	return kept, nil
}

// keepLayers keeps the layers of an image where the supervisor finds them.
func (s *stack) keepLayers(ctx context.Context, live string, image pipeline.Image) (layers.Kept, error) {
	return layers.Keep(ctx, supervise.LayersDir(live), image.Descriptor.Digest, func(ctx context.Context) (layers.Kept, func() error, error) {
		r, err := s.builder.Rootfs(ctx, image, "")
		return layers.Kept{Lowers: r.Lowers, Config: r.Config, Healthcheck: r.Health}, r.Release, err
	})
}

// fill makes a volume's directory, once: as its seed, or as the directory of the
// image that it is mounted over.
func (d developer) fill(ctx context.Context, dir, from, target string, image pipeline.Image) error {
	if exists(dir) {
		return nil
	}
	seed, err := d.mounts.seed(ctx, from, target, image)
	if err != nil {
		return err
	}
	return d.seedInto(ctx, seed, dir)
}

// fillVolume makes a volume's directory from where its content comes.
func (w wiring) fillVolume(ctx context.Context, dir string, from volume.Source) error {
	seed, err := w.volumes.Seed(ctx, "", from)
	if err != nil {
		return err
	}
	return w.seedInto(ctx, seed, dir)
}

// seedInto copies a seed to a directory, whole or not at all.
func (w wiring) seedInto(ctx context.Context, seed volume.Volume, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	fresh := fmt.Sprintf("%s.new-%d", dir, time.Now().UnixNano())
	if err := w.volumes.CopyOut(ctx, seed.ID, "/", fresh); err != nil {
		return err
	}
	return os.Rename(fresh, dir)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
