//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"slipway/builder/progress"
	"slipway/internal/git"
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

func (g *globals) up(ctx context.Context, dir string, f upFlags) (err error) {
	q := settingUp{Dir: dir, Env: f.env, Set: f.set, Publish: f.publish, NoCache: f.noCache, Progress: f.progress, SSHAgent: os.Getenv("SSH_AUTH_SOCK")}
	if q.Secrets, err = readSecrets(f.secrets); err != nil {
		return err
	}
	p, err := q.plan(ctx) // before the root is opened
	if err != nil {
		return err
	}
	q.Dir = p.dir
	set, err := setUp.run(ctx, g, q, os.Stderr)
	if err != nil {
		return err
	}
	if set.Run.State != pipeline.Passed {
		return g.conclude(set.Run, store.ReadOnly(g.root).RunDir(set.Run.ID))
	}
	return g.applyAndTell(ctx, set.Spec)
}

// settingUp is a development set that is to run, and how.
type settingUp struct {
	Dir, Env     string
	Set, Publish []string
	Secrets      map[string][]byte
	NoCache      bool
	Progress     string
	SSHAgent     string // socket of whoever asks
}

// set is a development set whose images are built: what the supervisor is to run.
type set struct {
	Run  store.Run
	Spec supervise.Spec // of a run that passed
}

var setUp = chore[settingUp, set]{name: "up", open: openOptions{command: "slipway up", volumes: true}, do: buildSet}

// setPlan is what is built for a development set, and the environment it is to have.
type setPlan struct {
	pipeline.Plan
	dir   string // of the pipeline file, absolute
	event pipeline.Event
	tree  *git.Tree
	env   development
}

func (q settingUp) plan(ctx context.Context) (p setPlan, err error) {
	var parsed *pipeline.Pipeline
	if p.dir, parsed, err = load(q.Dir); err != nil {
		return p, err
	}
	if p.event, p.tree, err = (eventFlags{}).event(ctx, p.dir); err != nil {
		return p, err
	}
	if p.Plan, err = parsed.Expand(p.event); err != nil {
		return p, usageError{err}
	}
	if p.env, err = developmentEnvironment(p.dir, p.Plan, q.Env); err != nil {
		return p, err
	}
	for i := range p.Tasks {
		if p.Tasks[i].Kind == pipeline.TestTask {
			p.Tasks[i].Skip = "slipway up runs no tests"
		}
	}
	return p, errors.Join(p.env.set(q.Set), checkSecrets(q.Secrets, p.Plan))
}

// buildSet builds the images of a development set, and keeps the layers and volumes of it.
func buildSet(ctx context.Context, g *globals, s *stack, q settingUp, out io.Writer) (made set, err error) {
	p, err := q.plan(ctx)
	if err != nil {
		return made, err
	}
	f := runFlags{noCache: q.NoCache, progress: q.Progress, sshAgent: q.SSHAgent}
	if g.held != nil && q.Progress != string(progress.Quiet) { // whoever asks has no terminal here
		f.progress = string(progress.Plain)
	}
	made.Run, err = g.conduct(ctx, s, p.dir, p.Plan, p.event, watch(ctx, filepath.Join(p.dir, pipelineFile), p.tree), q.Secrets, f, out)
	if err == nil && made.Run.State == pipeline.Passed {
		made.Spec, err = g.developmentSpec(ctx, s, p.dir, p.Plan, made.Run, p.env, q.Publish, out)
	}
	return made, err
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
func (g *globals) developmentSpec(ctx context.Context, s *stack, dir string, plan pipeline.Plan, run store.Run, env development, publish []string, out io.Writer) (supervise.Spec, error) {
	w := wiring{stack: s, dir: dir, seeds: plan.Volumes, registries: g.registriesWith(nil, false), log: g.log}
	defer w.registries.Close()
	built, err := s.builtImages(ctx, plan, run)
	if err != nil {
		return supervise.Spec{}, err
	}
	set := developmentOf(plan, env)
	d := developer{globals: g, wiring: w, mounts: w.newMounts(built), built: built, project: developmentSet(dir), out: out}
	spec := supervise.Spec{Project: d.project, Of: dir}
	for _, key := range set.services {
		c, err := d.service(ctx, plan.Services[key])
		if err != nil {
			return spec, err
		}
		spec.Containers = append(spec.Containers, c)
	}
	images, err := d.images(ctx, set, env, publish)
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
