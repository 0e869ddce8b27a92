package docker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/secret"
	"slipway/pipeline"
	"slipway/promote"
)

const simpleYML = "services: {web: {image: x}, worker: {image: x}}\n"

func simple(config map[string]any) promote.Delivery {
	return promote.Delivery{
		Environment: "prod", Config: config,
		Images: []promote.DeliveredImage{{Name: "web", Repository: "registry.example.com/shop/web"}},
		Beside: func(name string) ([]byte, error) {
			if name != "c.yml" {
				return nil, errors.New(name + " is not there")
			}
			return []byte(simpleYML), nil
		},
	}
}

func TestConfigurationsThatCannotBe(t *testing.T) {
	for want, c := range map[string]struct {
		kind   string
		config map[string]any
		edit   func(*promote.Delivery)
	}{
		"file is missing":                                                      {"compose", map[string]any{}, nil},
		`unknown field "image"; it takes file`:                                 {"compose", map[string]any{"file": "c.yml", "image": "x"}, nil},
		"belongs to another kind; it takes file, files, project":               {"compose", map[string]any{"file": "c.yml", "stack": "x"}, nil},
		"belongs to another kind; it takes file, files, stack":                 {"swarm", map[string]any{"file": "c.yml", "project": "x"}, nil},
		`"../c.yml" is not a path beside`:                                      {"compose", map[string]any{"file": "../c.yml"}, nil},
		`"/etc/shadow" is not a path beside`:                                   {"compose", map[string]any{"file": "c.yml", "files": []any{"/etc/shadow"}}, nil},
		`the name "Shop"`:                                                      {"compose", map[string]any{"file": "c.yml", "project": "Shop"}, nil},
		`host "server:1": write unix`:                                          {"compose", map[string]any{"file": "c.yml", "host": "server:1"}, nil},
		`timeout "soon" is no duration`:                                        {"swarm", map[string]any{"file": "c.yml", "timeout": "soon"}, nil},
		`the environment has no image "api"`:                                   {"compose", map[string]any{"file": "c.yml", "services": map[string]any{"web": "api"}}, nil},
		"no service runs the image web":                                        {"compose", map[string]any{"file": "c.yml", "services": map[string]any{}}, nil},
		"c.yml has no service front; it has web, worker":                       {"compose", map[string]any{"file": "c.yml", "services": map[string]any{"front": "web"}}, nil},
		"other.yml is not there; commit the file first":                        {"compose", map[string]any{"file": "other.yml"}, nil},
		"motd is not there; commit the file first":                             {"compose", map[string]any{"file": "c.yml", "files": []any{"motd"}}, nil},
		"is in this root's own store (web), which the engine cannot pull from": {"swarm", map[string]any{"file": "c.yml"}, func(d *promote.Delivery) { d.Images[0].Repository = "web" }},
		"secret PASSWORD: the variable DB is not set": {"compose", map[string]any{"file": "c.yml"}, func(d *promote.Delivery) {
			d.Secrets = map[string]pipeline.Secret{"PASSWORD": {Env: "DB"}}
		}},
	} {
		t.Run(want, func(t *testing.T) {
			d := simple(c.config)
			if c.edit != nil {
				c.edit(&d)
			}
			conf, err := parse(c.kind, d)
			if err == nil {
				_, err = Options{Secrets: secret.Resolver{Getenv: func(string) (string, bool) { return "", false }}}.prepare(t.Context(), conf, d, t.TempDir())
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestValuesAreKeptNowhere: no file of a delivery, no argument and no error has a
// value of a secret.
func TestValuesAreKeptNowhere(t *testing.T) {
	bin := t.TempDir()
	argv := filepath.Join(bin, "argv")
	// A docker that notes its arguments, and tells all it knows when it fails.
	script := "#!/bin/sh\necho \"$0 $*\" >> " + argv + "\nenv | grep SLIPWAY >&2\nexit 1\n"
	for _, name := range []string{"docker", "docker-compose"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	d := simple(map[string]any{"file": "c.yml"})
	d.Secrets = map[string]pipeline.Secret{"PASSWORD": {Env: "DB"}}
	conf, err := parse("compose", d)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, err := Options{Secrets: secret.Resolver{Getenv: func(string) (string, bool) { return "hush hush", true }}}.prepare(t.Context(), conf, d, dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.compose(t.Context(), "up")
	if err == nil || !strings.Contains(err.Error(), "SLIPWAY_VALUE_0=***") || strings.Contains(err.Error(), "hush") {
		t.Errorf("the error is %v", err)
	}
	if said, _ := os.ReadFile(argv); !strings.Contains(string(said), "docker-compose --project-name prod") || strings.Contains(string(said), "hush") {
		t.Errorf("the arguments are %s", said)
	}
	for _, name := range p.files {
		if text, err := os.ReadFile(name); err != nil || strings.Contains(string(text), "hush") {
			t.Errorf("%s holds %s, %v", name, text, err)
		}
	}
}

// TestInterruptedProgramEnds: whoever cancels a delivery is not kept waiting.
func TestInterruptedProgramEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	if _, err := (engine{}).run(ctx, "sleep", "60"); !errors.Is(err, stopped) {
		t.Errorf("got %v", err)
	}
}
