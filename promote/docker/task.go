package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// service is what `docker service inspect` tells of one.
type service struct {
	ID           string
	Text         json.RawMessage `json:"Spec"` // whole, to see whether anything changed
	UpdateStatus struct {
		State, Message, StartedAt string
	}

	Spec struct {
		Name         string
		TaskTemplate struct{ ContainerSpec struct{ Image string } }
		Mode         struct{ Replicated *struct{ Replicas int } }
	} `json:"-"`
}

func (s service) image() string { return s.Spec.TaskTemplate.ContainerSpec.Image }

// gaveUp says whether an update has stopped, or is being taken back by the Swarm.
func (s service) gaveUp() bool {
	return s.UpdateStatus.State == "paused" || strings.HasPrefix(s.UpdateStatus.State, "rollback")
}

// task is one container that a service is to have, somewhere in the Swarm.
type task struct {
	CreatedAt    time.Time
	DesiredState string
	Spec         struct{ ContainerSpec struct{ Image string } }
	Status       struct {
		State, Err string
	}
}

// services asks for those of the stack, by their names in its file.
func (p prepared) services(ctx context.Context) (map[string]service, error) {
	stack := p.name(p.delivery)
	out, err := p.docker(ctx, "service", "ls", "--quiet", "--filter", "label=com.docker.stack.namespace="+stack)
	all := map[string]service{}
	if err != nil || len(lines(out)) == 0 {
		return all, err
	}
	var list []service
	if err := p.inspect(ctx, "service", lines(out), &list); err != nil {
		return nil, err
	}
	for _, s := range list {
		if err := json.Unmarshal(s.Text, &s.Spec); err != nil {
			return nil, fmt.Errorf("docker inspect of a service: %w", err)
		}
		all[strings.TrimPrefix(s.Spec.Name, stack+"_")] = s
	}
	return all, nil
}

// tasks asks for all that the Swarm remembers of a service.
func (p prepared) tasks(ctx context.Context, s service) ([]task, error) {
	for again := 5; ; again-- {
		out, err := p.docker(ctx, "service", "ps", "--quiet", "--no-trunc", s.ID)
		if err != nil || len(lines(out)) == 0 {
			return nil, err
		}
		var list []task
		err = p.inspect(ctx, "task", lines(out), &list)
		// It forgets old ones, also between the two questions.
		if err == nil || again == 0 || !strings.Contains(err.Error(), "not found") {
			return list, err
		}
	}
}

func (p prepared) inspect(ctx context.Context, kind string, ids []string, into any) error {
	out, err := p.docker(ctx, append([]string{"inspect", "--type", kind}, ids...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("docker inspect of a %s: %w", kind, err)
	}
	return nil
}
