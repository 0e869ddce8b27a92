package docker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/promote"
)

// Swarm delivers to a stack of a Swarm, through one of its managers.
type Swarm struct{ Options }

// Check implements promote.Deliverer. docker has no way to read a stack's file
// without deploying it, so that the file is only looked through here.
func (s Swarm) Check(ctx context.Context, d promote.Delivery) error {
	conf, err := parse("swarm", d)
	if err != nil {
		return err
	}
	return scratch(func(dir string) error {
		p, err := s.prepare(ctx, conf, d, dir)
		if err != nil {
			return err
		}
		return p.manager(ctx)
	})
}

// manager says why the engine cannot deploy a stack.
func (e engine) manager(ctx context.Context) error {
	if err := e.reach(ctx); err != nil {
		return err
	}
	out, err := e.docker(ctx, "info", "--format", "{{.Swarm.ControlAvailable}}")
	if err == nil && strings.TrimSpace(string(out)) != "true" {
		err = errors.New("the engine is no manager of a Swarm; run `docker swarm init` there, or write a manager's address as host")
	}
	return err
}

// Deliver implements promote.Deliverer. It waits until every task of the
// environment's services runs the new image: how they are replaced is said by
// the user's file (deploy.update_config).
func (s Swarm) Deliver(ctx context.Context, d promote.Delivery, out io.Writer) error {
	conf, err := parse("swarm", d)
	if err != nil {
		return err
	}
	p, err := s.prepare(ctx, conf, d, s.dirOf(d))
	if err != nil {
		return err
	}
	before, err := p.services(ctx)
	if err != nil {
		return err
	}
	if err := p.remove(ctx, before, out); err != nil {
		return err
	}
	args := []string{"stack", "deploy", "--prune", "--with-registry-auth", "--resolve-image", "never"}
	for _, file := range p.files {
		args = append(args, "--compose-file", file)
	}
	if _, err := p.docker(ctx, append(args, p.name(d))...); err != nil {
		return err
	}
	if err := p.converge(ctx, before); err != nil {
		return err
	}
	after, err := p.services(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if !bytes.Equal(before[name].Text, after[name].Text) && digestIn(after[name].image()) != "" {
			fmt.Fprintf(out, "swarm: %s runs %s\n", name, after[name].image())
		}
	}
	return nil
}

// remove takes away services that are not to run and do; the deployment puts
// them back with no tasks.
func (p prepared) remove(ctx context.Context, running map[string]service, out io.Writer) error {
	for _, name := range p.withheld() {
		s, ok := running[name]
		if !ok || digestIn(s.image()) == "" {
			continue
		}
		if _, err := p.docker(ctx, "service", "rm", s.ID); err != nil {
			return err
		}
		fmt.Fprintf(out, "swarm: %s runs no more\n", name)
	}
	return nil
}

const (
	// pollEvery is how often the tasks are looked at.
	pollEvery = 300 * time.Millisecond
	// steady is how long the tasks of a changed service run on before it counts, as
	// with docker's own `service update`: one that ends at once runs for a moment, too.
	steady = 5 * time.Second
)

// converge waits until all tasks run what they are to run, and go on to, or the
// Swarm gives up.
func (p prepared) converge(ctx context.Context, before map[string]service) error {
	after, err := p.services(ctx)
	if err != nil {
		return err
	}
	changed := slices.ContainsFunc(slices.Collect(maps.Keys(p.Services)), func(name string) bool {
		return !bytes.Equal(before[name].Text, after[name].Text)
	})
	limit, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	began, good, last := time.Now(), time.Time{}, "the Swarm has not answered"
	for {
		waiting, err := p.behind(limit, before, began)
		switch {
		case err != nil || waiting != "":
			good = time.Time{}
		case good.IsZero():
			good = time.Now()
		}
		if !good.IsZero() && (!changed || time.Since(good) >= steady) {
			return nil
		}
		last = cmp.Or(waiting, last)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if limit.Err() != nil {
			return fmt.Errorf("after %s: %s; `docker service ps --no-trunc` says why, and a longer timeout may be written under deliver.swarm", p.timeout, last)
		}
		if err != nil {
			return err
		}
		select {
		case <-limit.Done():
		case <-time.After(pollEvery):
		}
	}
}

// behind says which service is not yet what it is to be; empty: none is.
func (p prepared) behind(ctx context.Context, before map[string]service, began time.Time) (string, error) {
	now, err := p.services(ctx)
	if err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		im := imageOf(p.delivery, p.Services[name])
		if im.Digest == "" {
			continue
		}
		s, ok := now[name]
		if !ok {
			return "", fmt.Errorf("the service %s is gone again; somebody else has changed the stack", name)
		}
		if s.UpdateStatus.StartedAt != before[name].UpdateStatus.StartedAt && s.gaveUp() {
			return "", fmt.Errorf("the Swarm gave up on %s: %s", name, s.UpdateStatus.Message)
		}
		tasks, err := p.tasks(ctx, s)
		if err != nil {
			return "", err
		}
		if waiting := s.waiting(tasks, im.Digest); waiting != "" {
			return waiting, failing(tasks, im.Digest, began)
		}
	}
	return "", nil
}

// waiting says what a service still lacks.
func (s service) waiting(tasks []task, want digest.Digest) string {
	up := 0
	for _, t := range tasks {
		switch {
		case t.DesiredState == "running" && t.Status.State == "running" && digestIn(t.Spec.ContainerSpec.Image) == want:
			up++
		case t.DesiredState == "running" || t.Status.State == "running":
			return fmt.Sprintf("a task of %s is %s", s.Spec.Name, t.Status.State)
		}
	}
	if s.Spec.Mode.Replicated != nil && up < s.Spec.Mode.Replicated.Replicas || s.UpdateStatus.State == "updating" {
		return fmt.Sprintf("%d tasks of %s run", up, s.Spec.Name)
	}
	return ""
}

// enoughFailures is how many tasks of a new image may fail before it is given up.
const enoughFailures = 3

// failing finds that a new image's tasks fail one after the other. The Swarm
// itself would try for ever.
func failing(tasks []task, want digest.Digest, began time.Time) error {
	n, last := 0, ""
	for _, t := range tasks {
		if digestIn(t.Spec.ContainerSpec.Image) == want && t.CreatedAt.After(began) && (t.Status.State == "failed" || t.Status.State == "rejected") {
			n++
			last = t.Status.Err
		}
	}
	if n < enoughFailures {
		return nil
	}
	return fmt.Errorf("%d tasks have failed: %s", n, last)
}

// Status implements promote.Deliverer.
func (s Swarm) Status(ctx context.Context, d promote.Delivery) (promote.Status, error) {
	conf, err := parse("swarm", d)
	if err != nil {
		return promote.Status{}, err
	}
	p := prepared{config: conf, engine: engine{host: conf.Host}, delivery: d}
	if err := p.manager(ctx); err != nil {
		return promote.Status{}, err
	}
	all, err := p.services(ctx)
	if err != nil {
		return promote.Status{}, err
	}
	st := promote.Status{Known: true}
	for _, im := range d.Images {
		s, ok, err := p.taskStatus(ctx, im, all)
		if err != nil {
			return st, err
		}
		if ok {
			st.Images = append(st.Images, s)
		}
	}
	return st, nil
}

// taskStatus puts together what runs of an image, over all of its services.
func (p prepared) taskStatus(ctx context.Context, im promote.DeliveredImage, all map[string]service) (promote.ImageStatus, bool, error) {
	st := promote.ImageStatus{Name: im.Name, State: "running"}
	found := false
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		if p.Services[name] != im.Name {
			continue
		}
		s, ok := all[name]
		if !ok || digestIn(s.image()) == "" && im.Digest == "" {
			if im.Digest != "" {
				return promote.ImageStatus{Name: im.Name, State: "stopped", Detail: "there is no service " + name}, true, nil
			}
			continue
		}
		found = true
		tasks, err := p.tasks(ctx, s)
		if err != nil {
			return st, false, err
		}
		up := 0
		for _, t := range tasks {
			if t.Status.State != "running" {
				continue
			}
			up++
			if st.Digest == "" || st.Digest == im.Digest {
				st.Digest = digestIn(t.Spec.ContainerSpec.Image)
			}
			if st.Digest == "" {
				return promote.ImageStatus{Name: im.Name, State: "running", Detail: "it runs " + t.Spec.ContainerSpec.Image + ", which is a tag"}, true, nil
			}
		}
		if up == 0 {
			return promote.ImageStatus{Name: im.Name, State: "stopped", Detail: "no task of " + name + " runs"}, true, nil
		}
		if waiting := s.waiting(tasks, im.Digest); waiting != "" {
			st.State, st.Detail = "starting", waiting
		}
	}
	return st, found, nil
}
