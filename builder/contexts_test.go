package builder

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slipway/pipeline"
)

// One image of a pipeline stands on another, by digest.
func TestImageOnImage(t *testing.T) {
	b := fresh(t)
	dir := project(t, map[string]string{
		"base.Dockerfile": "FROM busybox:1\nCOPY v /v\n",
		"app.Dockerfile":  "FROM base\nRUN cat /v /v > /app\n",
		"v":               "1",
	})
	base := func() Output {
		return build(t, b, Request{Name: "base", Dir: dir, Build: pipeline.Build{Dockerfile: "base.Dockerfile"}})
	}
	app := func(on pipeline.Image) Output {
		return build(t, b, Request{
			Name: "app", Dir: dir, Bases: map[string]pipeline.Image{"base": on},
			Build: pipeline.Build{Dockerfile: "app.Dockerfile", AdditionalContexts: map[string]string{"base": "image:base"}},
		})
	}
	one := base()
	first := app(one.Image)
	if got := fileIn(t, b, first.Image, "app"); got != "11" {
		t.Errorf("/app holds %q", got)
	}
	if again := app(base().Image); !again.Cached {
		t.Error("nothing changed and a step ran")
	}
	if err := os.WriteFile(filepath.Join(dir, "v"), []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	second := app(base().Image)
	if got := fileIn(t, b, second.Image, "app"); second.Cached || got != "22" {
		t.Errorf("on a new base: cached %v, /app holds %q", second.Cached, got)
	}
	if third := app(one.Image); third.Image.Descriptor.Digest != first.Image.Descriptor.Digest {
		t.Errorf("on the old base again: %s, was %s", third.Image.Descriptor.Digest, first.Image.Descriptor.Digest)
	}

	images, err := b.Images(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		if img.Name == "app" && img.Current {
			if len(img.Layers) != 3 || !slices.Contains(img.Layers[1].SharedWith, "base") || len(img.Layers[2].SharedWith) != 0 {
				t.Errorf("layers of app: %+v", img.Layers)
			}
			if !strings.Contains(img.Layers[2].Command, "cat /v /v > /app") {
				t.Errorf("command of the last layer: %q", img.Layers[2].Command)
			}
		}
	}
}

// An imported image is found however the Dockerfile spells its name, and no
// other image of the store is found by a name.
func TestImportedNames(t *testing.T) {
	b := open(t, testOptions(t))
	importBusybox(t, b, "debian:12")
	importBusybox(t, b, "registry.example:5000/team/base")
	texts := []string{
		"FROM debian:12\n",
		"FROM docker.io/library/debian:12 AS x\nFROM x\n",
		"ARG V=12\nFROM debian:${V}\n",
		"FROM registry.example:5000/team/base\n",
		"FROM registry.example:5000/team/base:latest\n",
		"FROM scratch\nCOPY --from=debian:12 /bin/busybox /b\n",
	}
	if !raceDetector {
		texts = append(texts, "FROM debian:12\nRUN --mount=from=registry.example:5000/team/base,target=/m test -x /m/bin/busybox\n")
	}
	for _, text := range texts {
		dir := project(t, map[string]string{"Dockerfile": text})
		if _, err := b.Build(context.Background(), Request{Name: "app", Dir: dir}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	dir := project(t, map[string]string{"Dockerfile": "FROM app\n"})
	if _, err := b.Build(context.Background(), Request{Name: "thief", Dir: dir}); err == nil {
		t.Error("a build found another project's image by its name")
	}
}

func TestContexts(t *testing.T) {
	b := fresh(t)
	other := "COPY --from=other /bin/busybox /other\n"
	if raceDetector {
		other = ""
	}
	dir := project(t, map[string]string{
		"app/Dockerfile": "FROM busybox:1 AS one\nCOPY . /all\nRUN ls -A /all > /list\nFROM one AS two\nCOPY --from=shared lib /lib\n" + other +
			"FROM two AS unused\nRUN exit 1\n",
		"app/.dockerignore": "*.log\nsecret\n!kept.log\n",
		"app/kept.log":      "", "app/dropped.log": "", "app/secret/x": "", "app/main": "",
		"shared/lib": "shared\n", "shared/.dockerignore": "nothing\n",
	})
	out := build(t, b, Request{Dir: dir, Build: pipeline.Build{
		Context: "app", Target: "two",
		AdditionalContexts: map[string]string{"shared": "./shared", "other": "docker-image://busybox:1"},
	}})
	got := strings.Fields(fileIn(t, b, out.Image, "list"))
	slices.Sort(got)
	if want := []string{".dockerignore", "Dockerfile", "kept.log", "main"}; !slices.Equal(got, want) {
		t.Errorf("the context held %v, not %v", got, want)
	}
	if got := fileIn(t, b, out.Image, "lib"); got != "shared\n" {
		t.Errorf("/lib holds %q", got)
	}
}
