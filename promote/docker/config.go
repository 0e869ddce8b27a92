package docker

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"slipway/pipeline"
	"slipway/promote"
)

// config is what an environment file has under deliver.compose or deliver.swarm.
type config struct {
	File     string            `json:"file"`     // the Compose file, beside the environment file
	Files    []string          `json:"files"`    // what that file reads, beside it
	Project  string            `json:"project"`  // of Compose
	Stack    string            `json:"stack"`    // of Swarm
	Host     string            `json:"host"`     // of the engine
	Services map[string]string `json:"services"` // service of the file → image of the environment
	Timeout  string            `json:"timeout"`  // of Swarm: how long tasks may take to run

	kind    string
	timeout time.Duration
}

// defaultTimeout is how long a stack may take to run, pulling on each node included.
const defaultTimeout = 5 * time.Minute

var (
	projectName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
	hostAddress = regexp.MustCompile(`^(unix:///|ssh://|tcp://)[^\s]+$`)
)

// parse reads the configuration of one kind: "compose" or "swarm".
func parse(kind string, d promote.Delivery) (config, error) {
	c := config{kind: kind, timeout: defaultTimeout}
	data, err := json.Marshal(d.Config)
	if err != nil {
		return c, fmt.Errorf("%s: %w", kind, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	known := map[string]string{"compose": "file, files, project, host and services", "swarm": "file, files, stack, host, services and timeout"}[kind]
	if err := decoder.Decode(&c); err != nil {
		return c, fmt.Errorf("%s: %w; it takes %s", kind, errors.New(strings.TrimPrefix(err.Error(), "json: ")), known)
	}
	foreign := map[string]string{"compose": c.Stack + c.Timeout, "swarm": c.Project}[kind]
	if foreign != "" {
		return c, fmt.Errorf("%s: %q belongs to another kind; it takes %s", kind, foreign, known)
	}
	if c.File == "" {
		return c, fmt.Errorf("%s: file is missing; name the Compose file beside the environment file", kind)
	}
	for _, name := range append([]string{c.File}, c.Files...) {
		if path.IsAbs(name) || path.Clean(name) != name || name == "." || strings.HasPrefix(name, "..") {
			return c, fmt.Errorf("%s: %q is not a path beside the environment file", kind, name)
		}
	}
	if c.name(d) == "" || !projectName.MatchString(c.name(d)) {
		return c, fmt.Errorf("%s: the name %q: small letters, digits, - and _; write another as project or stack", kind, c.name(d))
	}
	if c.Host != "" && !hostAddress.MatchString(c.Host) {
		return c, fmt.Errorf("%s: host %q: write unix:///run/docker.sock, ssh://USER@HOST or tcp://HOST:PORT", kind, c.Host)
	}
	if c.Timeout != "" {
		if c.timeout, err = time.ParseDuration(c.Timeout); err != nil || c.timeout <= 0 {
			return c, fmt.Errorf("%s: timeout %q is no duration; write one such as 5m", kind, c.Timeout)
		}
	}
	return c, c.mapServices(d)
}

// name is what the engine knows the environment by.
func (c config) name(d promote.Delivery) string {
	return cmp.Or(c.Project, c.Stack, d.Environment)
}

// mapServices gives each image the service of its own name where none is written,
// and refuses images that no service runs or that the engine cannot pull.
func (c *config) mapServices(d promote.Delivery) error {
	if c.Services == nil {
		c.Services = map[string]string{}
		for _, im := range d.Images {
			c.Services[im.Name] = im.Name
		}
	}
	served := map[string]bool{}
	for _, service := range slices.Sorted(maps.Keys(c.Services)) {
		image := c.Services[service]
		if !slices.ContainsFunc(d.Images, func(im promote.DeliveredImage) bool { return im.Name == image }) {
			return fmt.Errorf("%s: services.%s: the environment has no image %q", c.kind, service, image)
		}
		served[image] = true
	}
	for _, im := range d.Images {
		if !served[im.Name] {
			return fmt.Errorf("%s: services: no service runs the image %s; write SERVICE: %s", c.kind, im.Name, im.Name)
		}
		host, _, _ := strings.Cut(im.Repository, "/")
		if !strings.Contains(im.Repository, "/") || !strings.ContainsAny(host, ".:") && host != "localhost" {
			return fmt.Errorf("%s: the image %s is in this root's own store (%s), which the engine cannot pull from; write images.%s.repository with a registry's name (`slipway registry serve` is one)",
				c.kind, im.Name, im.Repository, im.Name)
		}
	}
	return nil
}

// FileNames are the files beside the environment file that a delivery reads.
func FileNames(d pipeline.Deliver) ([]string, error) {
	var c config
	data, err := json.Marshal(d.Config)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil || c.File == "" {
		return nil, fmt.Errorf("%s: file is missing; name the Compose file beside the environment file", d.Kind)
	}
	return append([]string{c.File}, c.Files...), nil
}

// composeFile is what of a Compose file concerns the override.
type composeFile struct {
	Version  string               `yaml:"version"`
	Services map[string]yaml.Node `yaml:"services"`
}

// checkFile finds the services in the user's file.
func (c config) checkFile(data []byte) (composeFile, error) {
	var f composeFile
	if err := yaml.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("%s: %w", c.File, err)
	}
	for _, service := range slices.Sorted(maps.Keys(c.Services)) {
		if _, ok := f.Services[service]; !ok {
			return f, fmt.Errorf("%s: %s has no service %s; it has %s: write which of them runs which image under services", c.kind, c.File, service, strings.Join(slices.Sorted(maps.Keys(f.Services)), ", "))
		}
	}
	return f, nil
}
