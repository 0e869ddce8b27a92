//go:build linux && !client

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"slipway/internal/engine"
	"slipway/internal/store"
	"slipway/pipeline"
	"slipway/promote"
)

// dryRun prints what a run would do. It needs no privileges, takes no lock,
// opens nothing for writing and touches no network.
func (g *globals) dryRun(ctx context.Context, dir string, plan pipeline.Plan, ev pipeline.Event, f runFlags) error {
	cast, err := g.forecast(ctx, dir, plan, ev, engine.Options{RerunTests: f.rerunTests, NoCache: f.noCache})
	if err != nil {
		return err
	}
	if g.json {
		return printJSON(os.Stdout, cast)
	}
	painter{w: os.Stdout, color: g.color && isTerminal(os.Stdout)}.forecast(cast)
	return nil
}

// forecast is what a run of the plan would do with the files of a directory.
func (g *globals) forecast(ctx context.Context, dir string, plan pipeline.Plan, ev pipeline.Event, o engine.Options) (engine.Forecast, error) {
	records := store.ReadOnly(g.root)
	e := &engine.Engine{Inputs: inputs(dir, records), Fixtures: engine.Fixtures(dir), Known: knownImages(records), Store: records, Log: g.log}
	o.Dir = dir
	cast, err := e.Forecast(ctx, plan, o)
	if err != nil {
		return cast, err
	}
	cast.Commit = ev.Commit
	cast.Environments = environments(dir, plan, cast)
	return cast, nil
}

// environments foretells what promoting would ask and change, per environment file.
func environments(dir string, plan pipeline.Plan, cast engine.Forecast) []engine.EnvironmentForecast {
	var out []engine.EnvironmentForecast
	for _, file := range plan.Environments {
		out = append(out, environment(dir, file, cast))
	}
	return out
}

func environment(dir, file string, cast engine.Forecast) engine.EnvironmentForecast {
	out := engine.EnvironmentForecast{File: file}
	data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(file)))
	if err != nil {
		out.Error = err.Error()
		return out
	}
	env, err := pipeline.ParseEnvironment(file, data)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	out.Name, out.From = env.Name, env.From
	var images []promote.Candidate
	for _, im := range cast.Images {
		if im.State != engine.WillSkip {
			images = append(images, promote.Candidate{Name: im.Name, Matrix: im.Matrix, Digest: im.Digest})
		}
	}
	preview, err := promote.Preview(file, data, images)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	for _, gate := range preview.Gates {
		out.Gates = append(out.Gates, gate.String())
	}
	out.Diff = preview.Diff
	return out
}

func (p painter) forecast(c engine.Forecast) {
	fmt.Fprintf(p.w, "plan %s\n", c.Plan)
	if c.Commit != "" {
		fmt.Fprintf(p.w, "commit %s\n", c.Commit)
	}
	for _, im := range c.Images {
		fmt.Fprintf(p.w, "\n%s  %s\n", p.paint(bold, im.Task), p.foretold(im.State, im.Reason))
		for _, line := range [][2]string{{"digest", im.Digest}, {"platforms", strings.Join(im.Platforms, ", ")}, {"needs", strings.Join(im.Needs, ", ")}} {
			if line[1] != "" {
				fmt.Fprintf(p.w, "  %s %s\n", line[0], p.paint(dim, line[1]))
			}
		}
		for _, t := range im.Tests {
			fmt.Fprintf(p.w, "  test %s  %s\n", t.Name, p.foretold(t.State, t.Reason))
			fmt.Fprintf(p.w, "    %s\n", p.paint(dim, detail(t)))
		}
	}
	for _, s := range c.Services {
		known := s.Digest
		if known == "" {
			known = "unknown until its registry is asked"
			if strings.HasPrefix(s.Image, "image:") {
				known = "as this pipeline builds it"
			}
		}
		fmt.Fprintf(p.w, "\nservice %s  %s\n  %s\n", p.paint(bold, s.Name), s.Image, p.paint(dim, known))
	}
	for _, env := range c.Environments {
		p.environment(env)
	}
	fmt.Fprintln(p.w, "\nnothing was built, started or written")
}

func (p painter) foretold(state, reason string) string {
	color := map[string]string{engine.Cached: green, engine.Reused: green, engine.Unknown: yellow}[state]
	s := p.paint(color, state)
	if reason != "" {
		s += ": " + reason
	}
	return s
}

func detail(t engine.TestForecast) string {
	command := strings.Join(strings.Fields(strings.Join(t.Command, " ")), " ")
	if command == "" {
		command = "the image's own command"
	}
	parts := []string{command, "network " + t.Network}
	if len(t.Services) > 0 {
		parts = append(parts, "services "+strings.Join(t.Services, ", "))
	}
	if len(t.Needs) > 0 {
		parts = append(parts, "after "+strings.Join(t.Needs, ", "))
	}
	return strings.Join(parts, " · ")
}

func (p painter) environment(env engine.EnvironmentForecast) {
	name := env.Name
	if name == "" {
		name = env.File
	}
	fmt.Fprintf(p.w, "\npromotion to %s", p.paint(bold, name))
	if len(env.From) > 0 {
		fmt.Fprintf(p.w, " (from %s)", strings.Join(env.From, ", "))
	}
	fmt.Fprintln(p.w)
	if env.Error != "" {
		fmt.Fprintln(p.w, indent(p.paint(red, env.Error), "  "))
		return
	}
	for _, gate := range env.Gates {
		fmt.Fprintf(p.w, "  gate %s\n", gate)
	}
	if env.Diff == "" {
		fmt.Fprintln(p.w, "  nothing changes")
		return
	}
	p.diff(env.Diff)
}
