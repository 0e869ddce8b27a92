package supervise

import (
	"strings"
	"testing"

	"slipway/pipeline"
)

const digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestParsePort(t *testing.T) {
	for text, want := range map[string]Port{
		"8080:80":           {":8080", 80},
		"127.0.0.1:8080:80": {"127.0.0.1:8080", 80},
		"[::1]:8080:80/tcp": {"[::1]:8080", 80},
	} {
		if got, err := ParsePort(text); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "80", "x:80", "8080:0", "8080:70000", "0:80", "8080:80/udp", "example.com:80:80", "1.2.3.4:5:6:7"} {
		if got, err := ParsePort(text); err == nil || !strings.Contains(err.Error(), "127.0.0.1:8080:80") {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestSpecsThatCannotRun(t *testing.T) {
	web := func(change func(*Container)) Spec {
		c := Container{Name: "web", Digest: digestA}
		change(&c)
		return Spec{Project: "shop", Containers: []Container{c}}
	}
	for why, spec := range map[string]Spec{
		"a name is":            {Project: "../shop"},
		"is there twice":       {Project: "shop", Containers: []Container{{Name: "web", Digest: digestA}, {Name: "web", Digest: digestA}}},
		"is not a digest":      web(func(c *Container) { c.Digest = "latest" }),
		"absolute path":        web(func(c *Container) { c.Mounts = []Mount{{Volume: "data", Target: "data"}} }),
		"volume \"../x\"":      web(func(c *Container) { c.Mounts = []Mount{{Volume: "../x", Target: "/data"}} }),
		"path on this machine": web(func(c *Container) { c.Mounts = []Mount{{Source: "data", Target: "/data"}} }),
		"file \"/a/../b\"":     web(func(c *Container) { c.Files = map[string][]byte{"/a/../b": nil} }),
		"none of always":       web(func(c *Container) { c.Restart = "sometimes" }),
		"not part of it":       web(func(c *Container) { c.Service.DependsOn = map[string]string{"db": ""} }),
		"web → web":            web(func(c *Container) { c.Service.DependsOn = map[string]string{"web": ""} }),
		"both web and db": {Project: "shop", Containers: []Container{
			{Name: "web", Digest: digestA, Ports: []Port{{"127.0.0.1:80", 80}}}, {Name: "db", Digest: digestA, Ports: []Port{{"127.0.0.1:80", 81}}},
		}},
	} {
		if err := spec.Check(); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %v", why, err)
		}
	}
}

func TestOrderFollowsDependencies(t *testing.T) {
	s := Spec{Project: "shop", Containers: []Container{
		{Name: "web", Digest: digestA, Service: pipeline.Service{DependsOn: map[string]string{"db": "", "cache": ""}}},
		{Name: "cache", Digest: digestA},
		{Name: "db", Digest: digestA, Service: pipeline.Service{DependsOn: map[string]string{"cache": ""}}},
	}}
	sorted, err := s.order()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range sorted {
		names = append(names, c.Name)
	}
	if got := strings.Join(names, " "); got != "cache db web" {
		t.Error(got)
	}
}

func TestPortsAreNoPartOfAContainer(t *testing.T) {
	a := Container{Name: "web", Digest: digestA, Ports: []Port{{"127.0.0.1:80", 80}}}
	b := a
	b.Ports = nil
	if !a.same(&b) {
		t.Error("another port makes another container")
	}
	b.Service.Environment = map[string]string{"A": "b"}
	if a.same(&b) {
		t.Error("another environment makes no other container")
	}
}
