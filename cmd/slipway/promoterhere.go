//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"slipway/internal/git"
	"slipway/internal/registry"
	"slipway/internal/supervise"
	"slipway/pipeline"
	"slipway/promote"
	"slipway/promote/docker"
)

// withPromoter opens what a promotion needs, and first ends what was cut off on this root.
func (g *globals) withPromoter(ctx context.Context, f environmentFlags, do func(*promote.Promoter) error) error {
	access, err := f.access(g)
	if err != nil {
		return err
	}
	open := func(address string) (*git.Repository, error) { return git.At(address, access) }
	repo, err := open(f.home(g))
	if err != nil {
		return usageError{err}
	}
	engines := docker.Options{Dir: filepath.Join(g.root, "deliver"), Secrets: g.secrets()}
	return g.withRepositories(f.insecure, func(all *registry.Registries) error {
		p := &promote.Promoter{
			Dir: promotionsDir(g.root), Environments: promote.Environments{Repository: repo, Branch: f.branch},
			Registries: all, Git: open, Now: time.Now, Sign: f.person(), Out: os.Stderr,
			Deliverers: map[string]promote.Deliverer{
				"local":   localDelivery{g, all},
				"compose": docker.Compose{Options: engines},
				"swarm":   docker.Swarm{Options: engines},
				"git":     &promote.GitDelivery{Home: f.home(g), Line: f.branch, Git: open, Now: time.Now, Sign: f.person()},
			},
		}
		ended, err := p.Recover(ctx)
		for _, o := range ended {
			fmt.Fprintf(os.Stderr, "slipway: %s %s to %s had been cut off; it is %s now%s\n", o.Kind, o.Promotion, o.Environment, o.State, because(o.Reason))
		}
		return errors.Join(err, do(p))
	})
}

// filesOfDelivery names what a delivery reads beside its environment file.
func filesOfDelivery(d pipeline.Deliver) ([]string, error) {
	switch d.Kind {
	case "local":
		l, err := supervise.ParseLocal(d.Config)
		return l.FileNames(), err
	case "compose", "swarm":
		return docker.FileNames(d)
	}
	return nil, nil
}

func (g *globals) beginEnvironments(ctx context.Context, f environmentFlags, dir string) error {
	abs, p, err := load(dir)
	if err != nil {
		return err
	}
	if len(p.Environments) == 0 {
		return usagef("%s names no environments; write environments: [environments/prod.yml] there, and the file", filepath.Join(dir, pipelineFile))
	}
	source, err := sourceOf(abs)
	if err != nil {
		return err
	}
	if f.repository == "" {
		if err := git.Create(f.home(g), f.branch); err != nil {
			return fmt.Errorf("make the environments' repository: %w", err)
		}
	}
	return g.withPromoter(ctx, f, func(pr *promote.Promoter) error {
		done, err := pr.Init(ctx, promote.Template{Files: os.DirFS(abs), Paths: p.Environments, Source: source, Delivered: filesOfDelivery}, f.person().String())
		if err != nil {
			return err
		}
		if g.json {
			return printJSON(os.Stdout, done)
		}
		for _, name := range done.Added {
			fmt.Println("added", name)
		}
		for _, name := range done.Kept {
			fmt.Println("kept ", name, "as it is")
		}
		fmt.Printf("environments are on %s of %s (commit %.12s)\n", f.branch, f.home(g), done.Commit)
		return nil
	})
}
