//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"slipway/internal/store"
	"slipway/internal/supervise"
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
