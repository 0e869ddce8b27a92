package docker

import (
	"context"
	"fmt"
	"io"
	"slices"

	"slipway/promote"
)

// Compose delivers to a Compose project.
type Compose struct{ Options }

// Check implements promote.Deliverer. It asks Compose itself whether the files
// are right, and finds the secrets.
func (c Compose) Check(ctx context.Context, d promote.Delivery) error {
	conf, err := parse("compose", d)
	if err != nil {
		return err
	}
	return scratch(func(dir string) error {
		p, err := c.prepare(ctx, conf, d, dir)
		if err != nil {
			return err
		}
		if err := p.reach(ctx); err != nil {
			return err
		}
		if _, err := p.compose(ctx, "config", "--quiet"); err != nil {
			return fmt.Errorf("%s: %w; mend the file", conf.File, err)
		}
		return nil
	})
}

// compose runs Compose on the project: docker's plugin, or the program of older systems.
func (p prepared) compose(ctx context.Context, args ...string) ([]byte, error) {
	argv := []string{"docker", "compose"}
	if _, err := p.docker(ctx, "compose", "version"); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		argv = []string{"docker-compose"}
	}
	argv = append(argv, "--project-name", p.name(p.delivery), "--project-directory", p.dir, "--ansi", "never")
	for _, file := range p.files {
		argv = append(argv, "--file", file)
	}
	return p.run(ctx, append(argv, args...)...)
}

// Deliver implements promote.Deliverer. Images are pulled before anything is
// stopped, so that a registry that does not answer changes nothing.
func (c Compose) Deliver(ctx context.Context, d promote.Delivery, out io.Writer) error {
	conf, err := parse("compose", d)
	if err != nil {
		return err
	}
	p, err := c.prepare(ctx, conf, d, c.dirOf(d))
	if err != nil {
		return err
	}
	if err := p.pull(ctx, out); err != nil {
		return err
	}
	before, err := p.containers(ctx)
	if err != nil {
		return err
	}
	if err := p.withdraw(ctx, before, out); err != nil {
		return err
	}
	if _, err := p.compose(ctx, "up", "--detach", "--no-build", "--quiet-pull", "--remove-orphans"); err != nil {
		return err
	}
	after, err := p.containers(ctx)
	if err != nil {
		return err
	}
	for _, now := range after {
		if !slices.ContainsFunc(before, func(was container) bool { return was.ID == now.ID && was.up() }) {
			fmt.Fprintf(out, "compose: %s runs %s\n", now.service(), now.Config.Image)
		}
	}
	return nil
}

// pull has the engine fetch what it lacks, by digest.
func (p prepared) pull(ctx context.Context, out io.Writer) error {
	for _, im := range p.delivery.Images {
		if im.Digest == "" {
			continue
		}
		if _, err := p.docker(ctx, "image", "inspect", pinned(im)); err == nil {
			continue
		}
		fmt.Fprintf(out, "compose: pulling %s\n", pinned(im))
		if _, err := p.docker(ctx, "pull", "--quiet", pinned(im)); err != nil {
			return fmt.Errorf("the engine cannot pull %s: %w; it needs to reach the registry, and `docker login` here if that asks who it is", pinned(im), err)
		}
	}
	return nil
}

// withdraw removes the containers of services that are not to run.
func (p prepared) withdraw(ctx context.Context, running []container, out io.Writer) error {
	var ids []string
	for _, c := range running {
		if slices.Contains(p.withheld(), c.service()) {
			ids = append(ids, c.ID)
			fmt.Fprintf(out, "compose: %s runs no more\n", c.service())
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if _, err := p.docker(ctx, append([]string{"stop"}, ids...)...); err != nil {
		return err
	}
	_, err := p.docker(ctx, append([]string{"rm", "--force"}, ids...)...)
	return err
}

// Status implements promote.Deliverer.
func (c Compose) Status(ctx context.Context, d promote.Delivery) (promote.Status, error) {
	conf, err := parse("compose", d)
	if err != nil {
		return promote.Status{}, err
	}
	p := prepared{config: conf, engine: engine{host: conf.Host}, delivery: d}
	if err := p.reach(ctx); err != nil {
		return promote.Status{}, err
	}
	all, err := p.containers(ctx)
	if err != nil {
		return promote.Status{}, err
	}
	images, err := p.images(ctx, all)
	if err != nil {
		return promote.Status{}, err
	}
	st := promote.Status{Known: true}
	for _, im := range d.Images {
		if s, ok := p.imageStatus(im, all, images); ok {
			st.Images = append(st.Images, s)
		}
	}
	return st, nil
}
