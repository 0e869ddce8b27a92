//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/engine"
	"slipway/internal/layers"
	"slipway/internal/store"
	"slipway/internal/supervise"
	"slipway/internal/volume"
	"slipway/pipeline"
)

// upFlags are those of `up`.
type upFlags struct {
	runFlags
	env     string
	set     []string
	publish []string
}

func upCommand(g *globals) *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up [DIR]",
		Short: "Build DIR's images and run them with their services, as a development set",
		Long: "Builds the images of DIR's .ci.yml, without their tests, and runs them beside the\nservices that their tests use: what nothing else stands on. Run it again after a\n" +
			"change: only what changed is replaced, and only by something that gets healthy.\n\nConfiguration comes from the environment file that --env names (dev where the\n" +
			"pipeline has one of that name) and from --set. Named volumes begin as their seeds\nand are kept until `slipway down --volumes`.\n\n" + exitHelp,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return g.up(cmd.Context(), dirArg(args), f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.env, "env", "", "the environment file whose configuration is used (default: dev, if there is one)")
	fs.StringArrayVar(&f.set, "set", nil, "NAME=VALUE for the images' environment (repeatable)")
	fs.StringArrayVarP(&f.publish, "publish", "p", nil, "IMAGE=HOST:CONTAINER, a port (default: what the image exposes, on 127.0.0.1)")
	fs.StringVar(&f.secrets, "secrets", "", "file of NAME=VALUE lines: the secrets that builds may name")
	fs.BoolVar(&f.noCache, "no-cache", false, "rebuild every layer")
	fs.StringVar(&f.progress, "progress", "auto", "auto, tty, plain or quiet")
	return cmd
}

func (g *globals) up(ctx context.Context, dir string, f upFlags) error {
	abs, p, err := load(dir)
	if err != nil {
		return err
	}
	ev, tree, err := f.event(ctx, abs)
	if err != nil {
		return err
	}
	plan, err := p.Expand(ev)
	if err != nil {
		return usageError{err}
	}
	env, err := developmentEnvironment(abs, plan, f.env)
	if err != nil {
		return err
	}
	if err := env.set(f.set); err != nil {
		return err
	}
	for i := range plan.Tasks {
		if plan.Tasks[i].Kind == pipeline.TestTask {
			plan.Tasks[i].Skip = "slipway up runs no tests"
		}
	}
	secrets, err := readSecrets(f.secrets, plan)
	if err != nil {
		return err
	}
	s, err := g.open(ctx, openOptions{command: "slipway up " + dir, volumes: true})
	if err != nil {
		return err
	}
	run, err := g.conduct(ctx, s, abs, plan, ev, watch(ctx, filepath.Join(abs, pipelineFile), tree), secrets, f.runFlags)
	var spec supervise.Spec
	if err == nil && run.State == pipeline.Passed {
		spec, err = g.developmentSpec(ctx, s, abs, plan, run, env, f)
	}
	if err = errors.Join(err, s.close()); err != nil {
		return err
	}
	if run.State != pipeline.Passed {
		return g.conclude(run, s.store.RunDir(run.ID))
	}
	return g.applyAndTell(ctx, spec)
}

// applyAndTell hands a spec to the supervisor and prints what runs then.
func (g *globals) applyAndTell(ctx context.Context, spec supervise.Spec) error {
	c, err := g.supervisor(ctx)
	if err != nil {
		return err
	}
	if err := c.Apply(ctx, spec, func(step string) { fmt.Fprintln(os.Stderr, "slipway:", step) }); err != nil {
		fmt.Fprintln(os.Stderr, "slipway:", err)
		return exitError(exitFailed)
	}
	all, err := c.Status(ctx)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(p supervise.ProjectStatus) bool { return p.Project != spec.Project })
	if g.json {
		return printJSON(os.Stdout, all)
	}
	return printProjects(os.Stdout, all)
}

// development is the environment file whose configuration a development set has.
type development struct {
	pipeline.Environment
	dir string // of its file
}

// developmentEnvironment reads the named environment file of a pipeline; without
// a name, dev where there is one, and else an empty one.
func developmentEnvironment(dir string, plan pipeline.Plan, name string) (development, error) {
	var have []string
	for _, file := range plan.Environments {
		path := filepath.Join(dir, filepath.FromSlash(file))
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && name == "" {
			continue
		}
		if err != nil {
			return development{}, usagef("read an environment file: %w", err)
		}
		env, err := pipeline.ParseEnvironment(path, data)
		if err != nil {
			return development{}, err
		}
		if env.Name == name || name == "" && env.Name == "dev" {
			return development{*env, filepath.Dir(path)}, nil
		}
		have = append(have, env.Name)
	}
	if name != "" {
		return development{}, usagef("--env %s: the pipeline's environments are %s; add its file under `environments` in %s", name, strings.Join(have, ", "), pipelineFile)
	}
	return development{}, nil
}

// set puts --set over the file's environment.
func (d *development) set(pairs []string) error {
	over := maps.Clone(d.Environment.Environment)
	if over == nil {
		over = map[string]string{}
	}
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return usagef("--set %s: write NAME=VALUE", pair)
		}
		over[name] = value
	}
	d.Environment.Environment = over
	return nil
}

// developmentSpec says what is to run, and keeps the layers and volumes of it.
func (g *globals) developmentSpec(ctx context.Context, s *stack, dir string, plan pipeline.Plan, run store.Run, env development, f upFlags) (supervise.Spec, error) {
	w := wiring{stack: s, dir: dir, seeds: plan.Volumes, registries: g.registriesWith(nil, false), log: g.log}
	defer w.registries.Close()
	built, err := s.builtImages(ctx, plan, run)
	if err != nil {
		return supervise.Spec{}, err
	}
	set := developmentOf(plan, env)
	d := developer{globals: g, wiring: w, mounts: w.newMounts(built), built: built, project: developmentSet(dir)}
	spec := supervise.Spec{Project: d.project, Of: dir}
	for _, key := range set.services {
		c, err := d.service(ctx, plan.Services[key])
		if err != nil {
			return spec, err
		}
		spec.Containers = append(spec.Containers, c)
	}
	images, err := d.images(ctx, set, env, f.publish)
	spec.Containers = append(spec.Containers, images...)
	return spec, err
}

// builtImages are the images of a run, by task.
func (s *stack) builtImages(ctx context.Context, plan pipeline.Plan, run store.Run) (map[string]pipeline.Image, error) {
	built := map[string]pipeline.Image{}
	n := 0
	for _, task := range plan.Tasks {
		if task.Kind != pipeline.BuildTask {
			continue
		}
		of := run.Images[n] // in the order of the plan
		n++
		if of.Digest == "" {
			continue // skipped
		}
		image, err := s.builder.Lookup(ctx, of.Repository+"@"+of.Digest)
		if err != nil {
			return nil, err
		}
		built[task.ID] = image
	}
	return built, nil
}

// developmentSetOf is what of a plan runs: images that nothing else stands on or
// is filled from, and the services beside their tests.
type setOf struct {
	images   []pipeline.Task
	services []string // keys of the plan's services, those they depend on included
}

func developmentOf(plan pipeline.Plan, env development) setOf {
	var set setOf
	used := func(task pipeline.Task) bool {
		ref := "image:" + task.ID
		for _, other := range plan.Tasks {
			if other.Build != nil && slices.Contains(slices.Collect(maps.Values(other.Build.AdditionalContexts)), ref) {
				return true
			}
		}
		for _, s := range plan.Services {
			if s.Image == ref {
				return true
			}
		}
		for _, v := range plan.Volumes {
			if strings.HasPrefix(v.From, ref+":") {
				return true
			}
		}
		return false
	}
	services := map[string]bool{}
	for _, task := range plan.Tasks {
		if task.Kind != pipeline.BuildTask || task.Skip != "" {
			continue
		}
		if chosen, ok := env.Images[task.Image]; len(env.Images) > 0 && (!ok || !fitsMatrix(task.Matrix, chosen.Matrix)) || len(env.Images) == 0 && used(task) {
			continue
		}
		set.images = append(set.images, task)
		for _, test := range plan.Tasks {
			if test.Kind == pipeline.TestTask && test.Image == task.Image && maps.Equal(test.Matrix, task.Matrix) {
				for key := range plan.ServicesOf(test) {
					services[key] = true
				}
			}
		}
	}
	set.services = slices.Sorted(maps.Keys(services))
	return set
}

func fitsMatrix(matrix, chosen map[string]string) bool {
	for k, v := range chosen {
		if matrix[k] != v {
			return false
		}
	}
	return true
}

// developer makes containers of a plan's images and services.
type developer struct {
	*globals
	wiring
	mounts  *mounts
	built   map[string]pipeline.Image
	project string
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
			fmt.Fprintf(os.Stderr, "slipway: %s has no command, and is not run\n", c.Name)
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
