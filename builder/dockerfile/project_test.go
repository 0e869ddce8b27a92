package dockerfile_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/builder"
	"slipway/builder/dockerfile"
	"slipway/pipeline"
)

// project is a directory with a Dockerfile that uses most of what one can, and
// the images it stands on.
type project struct {
	t       *testing.T
	b       *builder.Builder
	dir     string
	images  map[string]pipeline.Image
	configs map[digest.Digest][]byte
	build   pipeline.Build

	// what the Dockerfile's lines are made of
	mode, run, heredoc, label, extra int
	nested                           bool
}

func newProject(t *testing.T, b *builder.Builder) *project {
	p := &project{
		t: t, b: b, dir: t.TempDir(),
		images: map[string]pipeline.Image{}, configs: map[digest.Digest][]byte{},
		build: pipeline.Build{Context: ".", Args: map[string]string{"VERSION": "1"}, AdditionalContexts: map[string]string{"lib": "lib"}},
	}
	p.importBase("busybox:1", 1)
	p.importBase("busybox:2", 2)
	for name, text := range map[string]string{
		".dockerignore": "*.md\nlog\n", "requirements.txt": "django", "requirements-dev.txt": "pytest",
		"tools/one": "1", "tools/two": "2", "src/a.py": "a", "src/b.py": "b", "src/deep/c.py": "c",
		"conf/real.conf": "conf", "other.txt": "other", "README.md": "read me", "log/x": "log", "lib/l.so": "lib",
	} {
		p.write(name, text)
	}
	p.must(os.Symlink("real.conf", filepath.Join(p.dir, "conf/app.conf")))
	p.must(os.Mkdir(filepath.Join(p.dir, "link"), 0o755))
	p.must(os.Symlink("../src", filepath.Join(p.dir, "link/to-src")))
	p.save()
	return p
}

func (p *project) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *project) path(name string) string { return filepath.Join(p.dir, name) }

func (p *project) write(name, text string) {
	p.t.Helper()
	p.must(os.MkdirAll(filepath.Dir(p.path(name)), 0o755))
	p.must(os.WriteFile(p.path(name), []byte(text), 0o644))
}

func (p *project) save() { p.write("Dockerfile", p.dockerfile()) }

func (p *project) dockerfile() string {
	tools := "busybox:2"
	if raceDetector {
		tools = "deps"
	}
	text := fmt.Sprintf(`ARG BASE=busybox:1
FROM ${BASE} AS deps
ARG VERSION
ENV MODE=mode%d
WORKDIR /deps
COPY requirements*.txt ./
RUN cat requirements*.txt > out && echo $VERSION >> out

FROM %s AS tools
RUN --mount=type=bind,source=tools,target=/t cat /t/* > /tools
COPY <<EOT /etc/hello
hello %d
EOT

FROM deps AS app
COPY --from=tools /tools /tools
COPY --link conf/app.conf /conf/
COPY --chown=1000 --chmod=644 src /src
COPY --from=lib . /lib/
COPY link/ /linked/
RUN echo %d && cat /src/*.py > /bundle
RUN --mount=type=cache,target=/c --mount=type=bind,from=tools,source=/etc/hello,target=/hh cat /hh > /hh2
ADD other.txt /
COPY src/b.py /twin
COPY src/deep/c.py /twin
RUN <<EOT
  echo in a heredoc %d > /heredoc
EOT
`, p.mode, tools, p.heredoc, p.run, p.heredoc/2)
	for i := range p.extra {
		text += fmt.Sprintf("RUN echo extra %d > /extra\n", i)
	}
	text += fmt.Sprintf("LABEL number=%d\nCMD [\"/bin/cat\", \"/bundle\"]\n", p.label)
	if p.nested {
		text += "\nFROM app AS debug\nWORKDIR /debug\nCOPY src/deep deep\n"
	}
	return text
}

func (p *project) request() builder.Request {
	return builder.Request{Name: "app", Dir: p.dir, Build: p.build}
}

func (p *project) forecast() dockerfile.Request {
	return dockerfile.Request{Dir: p.dir, Build: p.build, Resolve: p.resolve}
}

// kind is one way to edit the project.
type kind struct {
	name string
	do   func(*rand.Rand)
}

// some is one of few texts, so that edits are undone at times.
func some(r *rand.Rand) string { return fmt.Sprintf("text %d", r.IntN(4)) }

func (p *project) kinds() []kind {
	return append(p.fileKinds(), []kind{
		{"a line", func(r *rand.Rand) { p.run = r.IntN(3); p.save() }},
		{"an ENV line", func(r *rand.Rand) { p.mode = r.IntN(3); p.save() }},
		{"a heredoc", func(r *rand.Rand) { p.heredoc = r.IntN(4); p.save() }},
		{"a label", func(r *rand.Rand) { p.label = r.IntN(3); p.save() }},
		{"a line more or less", func(r *rand.Rand) { p.extra = r.IntN(3); p.save() }},
		{"a stage more or less", func(*rand.Rand) { p.nested = !p.nested; p.build.Target = ""; p.save() }},
		{"an argument", func(r *rand.Rand) { p.build.Args["VERSION"] = fmt.Sprint(r.IntN(3)) }},
		{"an argument nobody takes", func(r *rand.Rand) { p.build.Args["NOBODY"] = fmt.Sprint(r.IntN(3)) }},
		{"the base argument", func(r *rand.Rand) { p.build.Args["BASE"] = fmt.Sprintf("busybox:%d", 1+r.IntN(2)) }},
		{"a base image", func(r *rand.Rand) { p.importBase(fmt.Sprintf("busybox:%d", 1+r.IntN(2)), 1+r.IntN(4)) }},
		{"the target", func(r *rand.Rand) { p.build.Target = []string{"", "app", "deps", "tools"}[r.IntN(4)] }},
		{"the ignore file", func(r *rand.Rand) {
			p.write(".dockerignore", []string{"*.md\nlog\n", "*.md\nlog\nsrc/a.py\n", "log\n**/two\n", "requirements*\n!requirements.txt\nlog\n"}[r.IntN(4)])
		}},
		{"the cache turned off", func(*rand.Rand) { p.build.NoCache = true }},
		{"nothing", func(*rand.Rand) {}},
	}...)
}

func (p *project) fileKinds() []kind {
	files := []string{"requirements.txt", "requirements-dev.txt", "tools/one", "src/a.py", "src/deep/c.py", "conf/real.conf", "other.txt", "lib/l.so"}
	file := func(r *rand.Rand) string { return p.path(files[r.IntN(len(files))]) }
	return []kind{
		{"a source file", func(r *rand.Rand) { p.must(os.WriteFile(file(r), []byte(some(r)), 0o644)) }},
		{"an ignored file", func(r *rand.Rand) { p.write("README.md", some(r)); p.write("log/x", some(r)) }},
		{"a file nobody takes", func(r *rand.Rand) { p.write("nobody.txt", some(r)) }},
		{"a file's mode", func(r *rand.Rand) { p.must(os.Chmod(file(r), []os.FileMode{0o644, 0o755, 0o600}[r.IntN(3)])) }},
		{"a directory's mode", func(r *rand.Rand) {
			p.must(os.Chmod(p.path([]string{"src/deep", "src", "lib", "link"}[r.IntN(4)]), []os.FileMode{0o755, 0o775}[r.IntN(2)]))
		}},
		{"a file's time", func(r *rand.Rand) {
			at := time.Unix(1_700_000_000+r.Int64N(1000), 0)
			p.must(os.Chtimes(file(r), at, at))
		}},
		{"content under the same size and time", func(r *rand.Rand) {
			name := file(r)
			fi, err := os.Stat(name)
			p.must(err)
			data, err := os.ReadFile(name)
			p.must(err)
			if len(data) > 0 {
				data[0] ^= 1
			}
			p.must(os.WriteFile(name, data, 0o644))
			p.must(os.Chtimes(name, fi.ModTime(), fi.ModTime()))
		}},
		{"a name", func(*rand.Rand) {
			from, to := p.path("src/deep/c.py"), p.path("src/deep/d.py")
			if _, err := os.Stat(p.path("src/deep/e.py")); err == nil {
				from, to = p.path("src/deep/e.py"), p.path("src/deep/f.py")
			} else {
				p.write("src/deep/e.py", "e")
			}
			_ = os.Remove(to)
			p.must(os.Rename(from, to))
			p.write("src/deep/c.py", "c")
		}},
		{"a file more or less", func(*rand.Rand) {
			if os.Remove(p.path("requirements-test.txt")) != nil {
				p.write("requirements-test.txt", "tox")
			}
		}},
		{"a twin of a file", func(r *rand.Rand) { p.write("src/deep/c.py", "b"); p.write("src/b.py", "b") }},
		{"a symlink", func(r *rand.Rand) {
			p.must(os.Remove(p.path("conf/app.conf")))
			p.write("conf/second.conf", "second")
			p.must(os.Symlink([]string{"real.conf", "second.conf", "../other.txt"}[r.IntN(3)], p.path("conf/app.conf")))
		}},
		{"a symlink that is copied", func(r *rand.Rand) {
			p.must(os.Remove(p.path("link/to-src")))
			p.must(os.Symlink([]string{"../src", "/etc"}[r.IntN(2)], p.path("link/to-src")))
		}},
		{"a file becomes a directory", func(*rand.Rand) {
			name := p.path("src/deep/kind")
			fi, err := os.Lstat(name)
			_ = os.RemoveAll(name)
			if err != nil || fi.IsDir() {
				p.write("src/deep/kind", "file")
			} else {
				p.write("src/deep/kind/f", "file")
			}
		}},
		{"a hard link", func(*rand.Rand) {
			if os.Remove(p.path("src/deep/hard")) != nil {
				p.must(os.Link(p.path("src/a.py"), p.path("src/deep/hard")))
			}
		}},
	}
}
