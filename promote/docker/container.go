package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"slipway/promote"
)

// container is what `docker inspect` tells of one.
type container struct {
	ID     string
	Image  string // the ID of its image, which is the digest of a configuration
	Config struct {
		Image  string // what it was made from, as it was named
		Labels map[string]string
	}
	State struct {
		Status   string
		ExitCode int
		Health   *struct{ Status string }
	}
	HostConfig struct{ RestartPolicy struct{ Name string } }
}

// The labels that Compose puts on what belongs to a project.
const (
	projectLabel = "com.docker.compose.project"
	serviceLabel = "com.docker.compose.service"
	oneOffLabel  = "com.docker.compose.oneoff"
)

func (c container) service() string { return c.Config.Labels[serviceLabel] }

func (c container) up() bool { return c.State.Status == "running" || c.State.Status == "restarting" }

// completed says whether it was a job, and has done it.
func (c container) completed() bool {
	policy := c.HostConfig.RestartPolicy.Name
	return c.State.Status == "exited" && c.State.ExitCode == 0 && (policy == "" || policy == "no")
}

// word is promote's word for its state.
func (c container) word() string {
	switch {
	case c.State.Status == "running" && c.State.Health != nil && c.State.Health.Status == "unhealthy":
		return "unhealthy"
	case c.State.Status == "running" && (c.State.Health == nil || c.State.Health.Status != "starting"):
		return "running"
	case c.up():
		return "starting"
	}
	return "stopped"
}

// containers asks the engine for what there is of the project.
func (p prepared) containers(ctx context.Context) ([]container, error) {
	out, err := p.docker(ctx, "ps", "--all", "--quiet", "--no-trunc", "--filter", "label="+projectLabel+"="+p.name(p.delivery), "--filter", "label="+oneOffLabel+"=False")
	if err != nil || len(lines(out)) == 0 {
		return nil, err
	}
	var all []container
	if out, err = p.docker(ctx, append([]string{"inspect", "--type", "container"}, lines(out)...)...); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("docker inspect: %w", err)
	}
	return all, nil
}

// images gives the names by digest that the engine knows each image by: those
// under which a registry gave it. A name that is not there was not pulled.
func (p prepared) images(ctx context.Context, of []container) (map[string][]string, error) {
	ids := map[string]bool{}
	for _, c := range of {
		ids[c.Image] = true
	}
	names := map[string][]string{}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		out, err := p.docker(ctx, "image", "inspect", "--format", "{{json .RepoDigests}}", id)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			continue // it was removed under a container that runs: its name is all that is left
		}
		var of []string
		if err := json.Unmarshal(out, &of); err != nil {
			return nil, fmt.Errorf("docker image inspect: %w", err)
		}
		names[id] = of
	}
	return names, nil
}

// running is the digest of the manifest that a container really runs, as its
// engine pulled it. What no registry gave has only the ID of its configuration.
func running(c container, repository string, images map[string][]string) (digest.Digest, string) {
	names, here := images[c.Image]
	if asked := digestIn(c.Config.Image); asked != "" && (!here || slices.ContainsFunc(names, func(n string) bool { return digestIn(n) == asked })) {
		return asked, ""
	}
	for _, name := range names {
		if d := digestIn(name); d != "" && strings.HasPrefix(name, repository+"@") {
			return d, "it was started as " + c.Config.Image
		}
	}
	for _, name := range names {
		if d := digestIn(name); d != "" {
			return d, "it was started as " + c.Config.Image
		}
	}
	return digest.Digest(c.Image), "it was started as " + c.Config.Image + ", which no registry gave"
}

// digestIn is the digest that an image's name ends with; empty: a tag.
func digestIn(name string) digest.Digest {
	_, text, _ := strings.Cut(name, "@")
	d := digest.Digest(text)
	if d.Validate() != nil {
		return ""
	}
	return d
}

// imageStatus puts together what runs of an image, over all of its services. The
// container that differs counts: not ok where there is nothing to tell.
func (p prepared) imageStatus(im promote.DeliveredImage, all []container, images map[string][]string) (promote.ImageStatus, bool) {
	st := promote.ImageStatus{Name: im.Name, State: "running"}
	found := false
	for _, service := range slices.Sorted(maps.Keys(p.Services)) {
		if p.Services[service] != im.Name {
			continue
		}
		of := slices.DeleteFunc(slices.Clone(all), func(c container) bool { return c.service() != service })
		if len(of) == 0 {
			if im.Digest != "" {
				return promote.ImageStatus{Name: im.Name, State: "stopped", Detail: "there is no container of " + service}, true
			}
			continue
		}
		for _, c := range of {
			found = true
			d, detail := running(c, im.Repository, images)
			if !c.up() && !c.completed() {
				return promote.ImageStatus{Name: im.Name, State: "stopped", Detail: fmt.Sprintf("%s has ended with exit code %d", service, c.State.ExitCode)}, true
			}
			if st.Digest == "" || st.Digest == im.Digest {
				st.Digest, st.Detail = d, detail
			}
			if word := c.word(); worse(word, st.State) && !c.completed() {
				st.State = word
			}
		}
	}
	if !slices.ContainsFunc(all, func(c container) bool { return p.Services[c.service()] == im.Name && c.up() }) && found {
		st.State, st.Digest = "stopped", ""
	}
	return st, found
}

// worse orders the words for states.
func worse(a, b string) bool {
	order := []string{"running", "starting", "unhealthy", "stopped"}
	return slices.Index(order, a) > slices.Index(order, b)
}
