package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"slipway/pipeline"
)

func TestBuild(t *testing.T) {
	b := fresh(t)
	dir := project(t, map[string]string{
		"Dockerfile": "# syntax=docker/dockerfile:9-does-not-exist\nFROM busybox:1\nCOPY a.txt /a\nRUN echo built > /b; id > /id\nCMD [\"/bin/cat\", \"/b\"]\n",
		"a.txt":      "hello\n",
	})
	var heard []pipeline.Progress
	r := Request{Dir: dir, Task: "app", Progress: func(p pipeline.Progress) { heard = append(heard, p) }}
	first := build(t, b, r)
	if first.Cached {
		t.Error("the first build says it was cached")
	}
	if len(heard) == 0 {
		t.Error("no progress was told")
	}
	if got := fileIn(t, b, first.Image, "b"); got != "built\n" {
		t.Errorf("/b holds %q", got)
	}
	if got := fileIn(t, b, first.Image, "id"); !strings.Contains(got, "uid=0") {
		t.Errorf("the step ran as %q", got)
	}
	if got := first.Config.Config.Cmd; len(got) != 2 || got[1] != "/b" {
		t.Errorf("command of the image: %q", got)
	}
	second := build(t, b, r)
	if base := second.Bases["docker.io/library/busybox:1"]; base == "" || base != first.Bases["docker.io/library/busybox:1"] {
		t.Errorf("it stands on %v, and after a rebuild on %v", first.Bases, second.Bases)
	}
	if !second.Cached || second.Image.Descriptor.Digest != first.Image.Descriptor.Digest {
		t.Errorf("second build: cached %v, %s after %s", second.Cached, second.Image.Descriptor.Digest, first.Image.Descriptor.Digest)
		for _, s := range second.Steps {
			t.Log(s.Name, s.Cached)
		}
	}
}

func TestBuildErrors(t *testing.T) {
	b := fresh(t)
	for _, c := range []struct {
		name, file string
		build      pipeline.Build
		line, exit int
		says       []string
	}{
		{name: "a command fails", file: "FROM busybox:1\nRUN true\nRUN echo oh no; exit 7\n", line: 3, exit: 7, says: []string{"Dockerfile:3: the command ended with exit code 7"}},
		{name: "a syntax error", file: "FROM busybox:1\nCOPPY a b\n", line: 2, says: []string{"Dockerfile:2:", "COPPY"}},
		{name: "a missing base", file: "FROM localhost:1/none:2\n", line: 1, says: []string{"Dockerfile:1:", "localhost:1/none:2", "slipway images import FILE --name localhost:1/none:2"}},
		{name: "a missing file", file: "FROM busybox:1\nCOPY nothing /\n", line: 2, says: []string{"Dockerfile:2: \"/nothing\": not found; check the name and .dockerignore"}},
		{name: "a file above the context", file: "FROM busybox:1\nCOPY ../../etc/passwd /\n", line: 2, says: []string{"Dockerfile:2:"}},
		{name: "a link out of the context", file: "FROM busybox:1\nCOPY out /\n", line: 2, says: []string{"Dockerfile:2:"}},
		{name: "the host's network", file: "FROM busybox:1\nRUN --network=host true\n", line: 2, says: []string{"--network=host asks for more"}},
		{name: "privileges", file: "FROM busybox:1\nRUN --security=insecure true\n", line: 2, says: []string{"--security=insecure asks for more"}},
		{name: "a foreign frontend", file: "FROM busybox:1\n", build: pipeline.Build{Args: map[string]string{"BUILDKIT_SYNTAX": "x"}}, says: []string{"BUILDKIT_SYNTAX"}},
		{name: "an unknown target", file: "FROM busybox:1 AS one\n", build: pipeline.Build{Target: "two"}, says: []string{`"two"`, "one"}},
		{name: "no Dockerfile", build: pipeline.Build{Dockerfile: "other"}, says: []string{"other: cannot read the Dockerfile"}},
		{name: "a Dockerfile outside", build: pipeline.Build{Dockerfile: "../Dockerfile"}, says: []string{"leaves"}},
		{name: "a context outside", build: pipeline.Build{Context: ".."}, says: []string{"leaves"}},
		{name: "a context through a link", build: pipeline.Build{Context: "up"}, says: []string{"leaves"}},
		{name: "no context", build: pipeline.Build{Context: "gone"}, says: []string{`"gone" is no directory`}},
		{name: "a missing secret", file: "FROM busybox:1\n", build: pipeline.Build{Secrets: []string{"token"}}, says: []string{`"token"`, "--secrets FILE"}},
		{name: "no ssh agent", file: "FROM busybox:1\n", build: pipeline.Build{SSH: []string{"default"}}, says: []string{"no ssh agent"}},
		{name: "a foreign command", file: "FROM scratch\nCOPY s390x /bin/sh\nRUN true\n", line: 3, exit: 255, build: pipeline.Build{Platforms: []string{"linux/s390x"}}, says: []string{"cannot run programs for linux/s390x", "binfmt"}},
		{name: "no platform", file: "FROM busybox:1\n", build: pipeline.Build{Platforms: []string{"a/b/c/d"}}, says: []string{"write it like linux/amd64"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := project(t, map[string]string{"p/Dockerfile": c.file, "Dockerfile": "FROM scratch\n"})
			if err := os.WriteFile(filepath.Join(dir, "p/s390x"), foreignProgram(), 0o755); err != nil {
				t.Fatal(err)
			}
			for link, to := range map[string]string{"out": "/etc/hostname", "up": ".."} {
				if err := os.Symlink(to, filepath.Join(dir, "p", link)); err != nil {
					t.Fatal(err)
				}
			}
			_, err := b.Build(context.Background(), Request{Name: "app", Dir: filepath.Join(dir, "p"), Build: c.build})
			var be *BuildError
			if !errors.As(err, &be) {
				t.Fatalf("no BuildError but %v", err)
			}
			t.Log(err)
			if be.Line != c.line || be.ExitCode != c.exit {
				t.Errorf("line %d, exit code %d", be.Line, be.ExitCode)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("the error does not say %q", s)
				}
			}
			if c.line > 0 && !strings.Contains(be.Source, ">>>") {
				t.Errorf("no source: %q", be.Source)
			}
			if c.exit == 7 && !strings.Contains(string(be.LastOutput), "oh no") {
				t.Errorf("last output %q", be.LastOutput)
			}
		})
	}
}

// foreignProgram is the header of a program for s390x, which nothing here runs.
func foreignProgram() []byte {
	elf := make([]byte, 120)
	copy(elf, "\x7fELF\x02\x02\x01")
	elf[17], elf[19], elf[23] = 2, 22, 1 // executable, EM_S390, version
	return elf
}

// Several platforms are built where their programs need not run.
func TestPlatforms(t *testing.T) {
	b := fresh(t)
	text := "FROM --platform=$BUILDPLATFORM busybox:1 AS made\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\nFROM scratch\nCOPY --from=made /arch /arch\n"
	if raceDetector { // each platform looks up the base
		text = "FROM scratch\nARG TARGETARCH\nCOPY <<END /arch\n$TARGETARCH\nEND\n"
	}
	dir := project(t, map[string]string{"Dockerfile": text})
	out := build(t, b, Request{Dir: dir, Build: pipeline.Build{Platforms: []string{"linux/" + runtime.GOARCH, "linux/s390x"}}})
	if len(out.Platforms) != 2 {
		t.Errorf("platforms: %v", out.Platforms)
	}
	for p, d := range out.Platforms {
		fs, err := b.Rootfs(context.Background(), out.Image, p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(fs.Lowers[0], "arch"))
		if err != nil || "linux/"+strings.TrimSpace(string(got)) != p {
			t.Errorf("%s (%s): /arch holds %q, %v", p, d.Digest, got, err)
		}
		if err := fs.Release(); err != nil {
			t.Error(err)
		}
	}
	if out.Config.Architecture != runtime.GOARCH {
		t.Errorf("Config is of %s", out.Config.Architecture)
	}
}

// Identical builds at the same time run each step once.
func TestConcurrentBuilds(t *testing.T) {
	b := fresh(t)
	dir := project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN --mount=type=cache,target=/c echo run >> /c/n; sleep 0.5; cp /c/n /n; cat /proc/sys/kernel/random/uuid > /u\n"})
	var wg sync.WaitGroup
	digests := make([]string, 4)
	for i := range digests {
		wg.Go(func() {
			out, err := b.Build(context.Background(), Request{Name: fmt.Sprint("app", i), Dir: dir})
			if err != nil {
				t.Error(err)
				return
			}
			digests[i] = out.Image.Descriptor.Digest.String()
		})
	}
	wg.Wait()
	for _, d := range digests {
		if d != digests[0] {
			t.Errorf("the builds gave %v", digests)
		}
	}
	img, err := b.Lookup(context.Background(), "app3")
	if err != nil {
		t.Fatal(err)
	}
	if got := fileIn(t, b, img, "n"); got != "run\n" {
		t.Errorf("the step ran more than once: %q", got)
	}
}

// Who wants a file system that somebody has gets the same, for as long as one of them does.
func TestRootfsIsShared(t *testing.T) {
	b := fresh(t)
	dir := project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN echo text > /made\n"})
	built, err := b.Build(t.Context(), Request{Name: "app", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	var all [3]Rootfs
	for i := range all {
		if all[i], err = b.Rootfs(t.Context(), built.Image, ""); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			if err := all[0].Release(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, r := range all[1:] {
		if text, err := os.ReadFile(filepath.Join(r.Lowers[0], "made")); string(text) != "text\n" {
			t.Errorf("%q, %v", text, err)
		}
		if err := r.Release(); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.Rootfs(t.Context(), pipeline.Image{}, ""); err == nil || len(b.lent) > 0 {
		t.Errorf("%v; still lent: %v", err, b.lent)
	}
}
