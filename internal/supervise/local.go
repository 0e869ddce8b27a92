package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// Local is `deliver: {local: …}` of an environment file: how its images run on
// this machine. What stands beside `images` is for the environment's only image,
// or for all of them.
type Local struct {
	LocalImage
	Images map[string]LocalImage `json:"images"`
}

// LocalImage is how one image runs. Keys and meaning are Compose's where it has them.
type LocalImage struct {
	Command   []string          `json:"command"`    // over the image's own
	Ports     []string          `json:"ports"`      // "8080:80", "127.0.0.1:8080:80"
	Volumes   []string          `json:"volumes"`    // "data:/var/lib/data" or "/host/path:/target", ":ro" behind
	Files     map[string]string `json:"files"`      // path in the container → file beside the environment file
	DependsOn []string          `json:"depends_on"` // images of the environment that must be well before it
	Restart   Restart           `json:"restart"`    // always (default), on-failure, no
	Network   pipeline.Network  `json:"network"`    // internet (default) or services; the host is never reached
	Grace     string            `json:"stop_grace_period"`
	Drain     string            `json:"drain"`  // how long open connections may go on after a switch
	Memory    string            `json:"memory"` // limits, as in the pipeline's resources
	CPUs      float64           `json:"cpus"`
}

// ParseLocal reads the map that an environment file has under deliver.local.
func ParseLocal(config map[string]any) (Local, error) {
	var l Local
	data, err := json.Marshal(config)
	if err != nil {
		return l, fmt.Errorf("deliver.local: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return l, fmt.Errorf("deliver.local: %w; it takes command, ports, volumes, files, depends_on, restart, network, stop_grace_period, drain, memory, cpus, and images: {NAME: the same}",
			errors.New(strings.TrimPrefix(err.Error(), "json: ")))
	}
	return l, nil
}

// FileNames are the files beside the environment file that containers are given, sorted.
func (l Local) FileNames() []string {
	names := map[string]bool{}
	for _, files := range append(slices.Collect(maps.Values(l.Images)), l.LocalImage) {
		for _, name := range files.Files {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Delivered is one image of an environment, to be run.
type Delivered struct {
	Name       string
	Repository string
	Digest     digest.Digest
}

// Plugs is what an environment gives to all of its containers.
type Plugs struct {
	Environment map[string]string
	Secrets     map[string]pipeline.Secret
	File        func(name string) ([]byte, error) // a file beside the environment file
}

// Containers are the containers of an environment's images.
func (l Local) Containers(images []Delivered, p Plugs) ([]Container, error) {
	for name := range l.Images {
		if !slices.ContainsFunc(images, func(d Delivered) bool { return d.Name == name }) {
			return nil, fmt.Errorf("deliver.local.images.%s: the environment has no image of that name", name)
		}
	}
	if len(images) > 1 && (len(l.Ports) > 0 || len(l.Command) > 0 || len(l.Volumes) > 0) {
		return nil, fmt.Errorf("deliver.local: %d images run here; write ports, volumes and command under images: {NAME: …}", len(images))
	}
	var all []Container
	for _, d := range images {
		c, err := l.container(d, p)
		if err != nil {
			return nil, fmt.Errorf("deliver.local, image %s: %w", d.Name, err)
		}
		all = append(all, c)
	}
	return all, nil
}

func (l Local) container(d Delivered, p Plugs) (Container, error) {
	how := l.over(l.Images[d.Name])
	c := Container{
		Name: d.Name, Repository: d.Repository, Digest: d.Digest, Secrets: p.Secrets, Restart: how.Restart,
		Service: pipeline.Service{Command: how.Command, Environment: p.Environment, Resources: pipeline.Resources{CPUs: how.CPUs}},
	}
	switch how.Network {
	case "", pipeline.NetworkInternet:
		c.Internet = true
	case pipeline.NetworkServices:
	default:
		return c, fmt.Errorf("network %q: write internet or services", how.Network)
	}
	var errs []error
	for _, text := range how.Ports {
		port, err := ParsePort(text)
		c.Ports, errs = append(c.Ports, port), append(errs, err)
	}
	for _, text := range how.Volumes {
		m, err := parseMount(text)
		c.Mounts, errs = append(c.Mounts, m), append(errs, err)
	}
	for _, name := range how.DependsOn {
		if c.Service.DependsOn == nil {
			c.Service.DependsOn = map[string]string{}
		}
		c.Service.DependsOn[name] = "service_healthy"
	}
	for name, s := range p.Secrets {
		if s.Age == "" {
			continue
		}
		data, err := p.File(s.Age)
		if err != nil {
			errs = append(errs, fmt.Errorf("secret %s: %w", name, err))
			continue
		}
		if c.Sealed == nil {
			c.Sealed = map[string][]byte{}
		}
		c.Sealed[s.Age] = data
	}
	for target, name := range how.Files {
		if c.Files == nil {
			c.Files = map[string][]byte{}
		}
		data, err := p.File(name)
		c.Files[target], errs = data, append(errs, err)
	}
	var err error
	c.StopGrace, err = parseDuration("stop_grace_period", how.Grace)
	errs = append(errs, err)
	c.Drain, err = parseDuration("drain", how.Drain)
	errs = append(errs, err)
	c.Service.Resources.Memory, err = parseSize(how.Memory)
	errs = append(errs, err)
	return c, errors.Join(errs...)
}

// over gives an image what is said for all, where it says nothing itself.
func (l Local) over(own LocalImage) LocalImage {
	all := l.LocalImage
	if own.Command == nil {
		own.Command = all.Command
	}
	if own.Ports == nil {
		own.Ports = all.Ports
	}
	if own.Volumes == nil {
		own.Volumes = all.Volumes
	}
	if own.Files == nil {
		own.Files = all.Files
	}
	if own.DependsOn == nil {
		own.DependsOn = all.DependsOn
	}
	for _, t := range []struct{ own, all *string }{
		{(*string)(&own.Restart), (*string)(&all.Restart)},
		{(*string)(&own.Network), (*string)(&all.Network)},
		{&own.Grace, &all.Grace},
		{&own.Drain, &all.Drain},
		{&own.Memory, &all.Memory},
	} {
		if *t.own == "" {
			*t.own = *t.all
		}
	}
	if own.CPUs == 0 {
		own.CPUs = all.CPUs
	}
	return own
}

// parseMount reads Compose's short form of a volume.
func parseMount(text string) (Mount, error) {
	bad := fmt.Errorf("volume %q: write NAME:/target or /path/on/this/machine:/target, and :ro behind it for reading only", text)
	parts := strings.Split(text, ":")
	if len(parts) == 3 && (parts[2] == "ro" || parts[2] == "rw") {
		parts, text = parts[:2], parts[2]
	}
	if len(parts) != 2 || !strings.HasPrefix(parts[1], "/") {
		return Mount{}, bad
	}
	m := Mount{Target: parts[1], ReadOnly: text == "ro"}
	switch {
	case filepath.IsAbs(parts[0]):
		m.Source = filepath.Clean(parts[0])
	case projectName.MatchString(parts[0]):
		m.Volume = parts[0]
	default:
		return Mount{}, bad
	}
	return m, nil
}

func parseDuration(key, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s: %q is no duration; write one such as 30s", key, text)
	}
	return d, nil
}

func parseSize(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	var n float64
	var unit string
	if _, err := fmt.Sscanf(strings.ToLower(text)+" ", "%f%s", &n, &unit); err != nil && unit == "" && n == 0 {
		return 0, fmt.Errorf("memory: %q is no size; write one such as 512m", text)
	}
	shift, ok := map[string]int{"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}[strings.TrimSuffix(unit, "b")]
	if !ok || n <= 0 {
		return 0, fmt.Errorf("memory: %q is no size; write one such as 512m", text)
	}
	return int64(n * float64(int64(1)<<shift)), nil
}
