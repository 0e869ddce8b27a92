package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"slipway/promote"
)

// prepared is a delivery with its files written and its values found.
type prepared struct {
	config
	engine
	delivery promote.Delivery
	files    []string // the user's and the override, in this order
}

// overrideName is beside the user's file. The dot keeps it apart from theirs.
const overrideName = ".slipway.json"

// prepare writes the files of a delivery into dir and finds its secrets.
func (o Options) prepare(ctx context.Context, c config, d promote.Delivery, dir string) (p prepared, err error) {
	p = prepared{config: c, engine: engine{host: c.Host, dir: dir}, delivery: d}
	user, err := d.Beside(c.File)
	if err != nil {
		return p, fmt.Errorf("%s: %w; commit the file first", c.kind, err)
	}
	parsed, err := c.checkFile(user)
	if err != nil {
		return p, err
	}
	names, err := p.findValues(ctx, o)
	if err != nil {
		return p, err
	}
	override, err := json.MarshalIndent(c.override(parsed.Version, d, names), "", "  ")
	if err != nil {
		return p, err
	}
	write := map[string][]byte{c.File: user, overrideName: override}
	for _, name := range c.Files {
		if write[name], err = d.Beside(name); err != nil {
			return p, fmt.Errorf("%s: %w; commit the file first", c.kind, err)
		}
	}
	for name, data := range write {
		at := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return p, err
		}
		if err := os.WriteFile(at, data, 0o644); err != nil { // containers may mount it, and any user run in them
			return p, err
		}
	}
	p.files = []string{filepath.Join(dir, filepath.FromSlash(c.File)), filepath.Join(dir, overrideName)}
	return p, nil
}

// findValues puts variables and secrets into the environment of the programs,
// under names that mean nothing to them, and gives those by variable.
func (p *prepared) findValues(ctx context.Context, o Options) (map[string]string, error) {
	values := maps.Clone(p.delivery.Variables)
	if values == nil {
		values = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(p.delivery.Secrets)) {
		value, err := o.Secrets.Value(ctx, name, p.delivery.Secrets[name], p.delivery.Beside)
		if err != nil {
			return nil, err
		}
		values[name] = value
	}
	names := map[string]string{}
	for i, name := range slices.Sorted(maps.Keys(values)) {
		names[name] = fmt.Sprintf("SLIPWAY_VALUE_%d", i)
		p.values = append(p.values, names[name]+"="+values[name])
	}
	return names, nil
}

// override is the second Compose file: exact images, and variables whose values
// the program puts in from its environment.
func (c config) override(version string, d promote.Delivery, names map[string]string) map[string]any {
	variables := map[string]string{}
	for name, of := range names {
		variables[name] = "${" + of + "}"
	}
	services := map[string]any{}
	for service, image := range c.Services {
		s := map[string]any{"environment": variables}
		if im := imageOf(d, image); im.Digest != "" {
			s["image"] = pinned(im)
		} else {
			c.withhold(s)
		}
		services[service] = s
	}
	all := map[string]any{"services": services}
	if version != "" {
		all["version"] = version // both files must say the same
	}
	return all
}

// withhold keeps a service from running that has no image yet.
func (c config) withhold(service map[string]any) {
	service["image"] = "slipway.invalid/not-promoted-yet"
	if c.kind == "swarm" {
		service["deploy"] = map[string]any{"mode": "replicated", "replicas": 0}
	} else {
		service["profiles"] = []string{"slipway-not-promoted-yet"}
	}
}

func imageOf(d promote.Delivery, name string) promote.DeliveredImage {
	i := slices.IndexFunc(d.Images, func(im promote.DeliveredImage) bool { return im.Name == name })
	return d.Images[i]
}

// pinned is the only way that an image is named to the engine.
func pinned(im promote.DeliveredImage) string { return im.Repository + "@" + im.Digest.String() }

// withheld are the services that are not to run, sorted.
func (p prepared) withheld() []string {
	var all []string
	for _, service := range slices.Sorted(maps.Keys(p.Services)) {
		if imageOf(p.delivery, p.Services[service]).Digest == "" {
			all = append(all, service)
		}
	}
	return all
}

// scratch gives a directory that is removed after use, for what changes nothing.
func scratch(use func(dir string) error) (err error) {
	dir, err := os.MkdirTemp("", "slipway-deliver-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return use(dir)
}

// dirOf is where an environment's files stay between deliveries: paths in the
// user's file are relative to it.
func (o Options) dirOf(d promote.Delivery) string { return filepath.Join(o.Dir, d.Environment) }
