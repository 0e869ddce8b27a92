package dockerfile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// write makes the files of a context. A name that ends in "@" is a symlink.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		p := filepath.Join(dir, strings.TrimSuffix(name, "@"))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "@") {
			_ = os.Remove(p)
			if err := os.Symlink(data, p); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const config = `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000001"]}}`

// onRecord answers every reference with a digest made of its name.
func onRecord(_ context.Context, name, _ string) (Image, error) {
	return Image{Digest: digest.FromString(name), Config: []byte(config), Imported: true}, nil
}

func request(dir string) Request {
	return Request{Dir: dir, Build: pipeline.Build{Context: "."}, Platform: "linux/amd64", Resolve: onRecord}
}

func mustSteps(t testing.TB, r Request) ([]Step, Final) {
	t.Helper()
	steps, final, err := Steps(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return steps, final
}

const sample = `FROM debian:12 AS build
ARG VERSION=1
WORKDIR /src
COPY src/ ./
RUN echo $VERSION > version
RUN --mount=type=bind,source=tools,target=/tools make

FROM debian:12
COPY --from=build /src/version /version
COPY run*.sh conf/app.conf /app/
COPY <<EOT /hello
hi
EOT
LABEL a=b
`

func sampleFiles() map[string]string {
	return map[string]string{
		"Dockerfile": sample, ".dockerignore": "*.md\nignored\n",
		"src/a.c": "a", "src/b.c": "b", "src/deep/c.c": "c",
		"tools/x": "x", "run1.sh": "1", "run2.sh": "2", "conf/app.conf@": "real.conf", "conf/real.conf": "r",
		"README.md": "r", "ignored/f": "f", "other": "o",
	}
}

// Each edit is compared with the build before it: which steps have new keys,
// and how that is explained.
func TestEdits(t *testing.T) {
	const (
		copySrc = "[build 2/5] COPY src/ ./"
		echo    = "[build 3/5] RUN echo 1 > version"
		mk      = "[build 4/5] RUN --mount=type=bind,source=tools,target=/tools make"
		version = "[stage-1 1/4] COPY --from=build /src/version /version"
		conf    = "[stage-1 2/4] COPY run*.sh conf/app.conf /app/"
		hello   = "[stage-1 3/4] COPY <<EOT /hello"
	)
	dockerfile := func(old, now string) map[string]string {
		return map[string]string{"Dockerfile": strings.Replace(sample, old, now, 1)}
	}
	for _, tc := range []struct {
		name    string
		files   map[string]string
		edit    func(dir string, r *Request) error
		new     []string // steps rebuilt for sure
		unknown []string
		why     string
	}{
		{name: "nothing"},
		{name: "a file nobody takes", files: map[string]string{"other": "2"}},
		{name: "an ignored file", files: map[string]string{"README.md": "2", "ignored/f": "2"}},
		{name: "time of modification", edit: func(dir string, _ *Request) error {
			return os.Chtimes(filepath.Join(dir, "src/a.c"), time.Unix(1, 0), time.Unix(1, 0))
		}},
		{name: "owner", edit: func(dir string, _ *Request) error {
			if os.Getuid() != 0 {
				return nil
			}
			return os.Chown(filepath.Join(dir, "src/a.c"), 1, 1)
		}},
		{
			name: "a source file", files: map[string]string{"src/deep/c.c": "2"},
			new: []string{copySrc, echo, mk}, unknown: []string{version, conf, hello}, why: "step " + copySrc + ": src/deep/c.c changed",
		},
		{
			name: "mode", edit: func(dir string, _ *Request) error { return os.Chmod(filepath.Join(dir, "run1.sh"), 0o755) },
			new: []string{conf, hello}, why: "step " + conf + ": run1.sh changed",
		},
		{name: "a new file for a wildcard", files: map[string]string{"run3.sh": "3"}, new: []string{conf, hello}, why: "step " + conf + ": run3.sh is new"},
		{name: "through a link", files: map[string]string{"conf/real.conf": "2"}, new: []string{conf, hello}, why: "step " + conf + ": conf/real.conf changed"},
		{
			name: "a mounted file", files: map[string]string{"tools/x": "2"},
			new: []string{mk}, unknown: []string{version, conf, hello}, why: "step " + mk + ": tools/x changed",
		},
		{
			name: "rename", edit: func(dir string, _ *Request) error {
				return os.Rename(filepath.Join(dir, "src/a.c"), filepath.Join(dir, "src/z.c"))
			},
			new: []string{copySrc, echo, mk}, unknown: []string{version, conf, hello}, why: "step " + copySrc + ": src/z.c is new, src/a.c is gone",
		},
		{
			name: "ignore file", files: map[string]string{".dockerignore": "*.md\nignored\nsrc/b.c\n"},
			new: []string{copySrc, echo, mk}, unknown: []string{version, conf, hello}, why: "step " + copySrc + ": src/b.c is gone",
		},
		{
			name: "argument", edit: func(_ string, r *Request) error { r.Build.Args = map[string]string{"VERSION": "2"}; return nil },
			new: []string{strings.Replace(echo, "1 >", "2 >", 1), mk}, unknown: []string{version, conf, hello},
			why: "step [build 3/5] RUN echo 2 > version: argument VERSION changed",
		},
		{
			name: "line", files: dockerfile("> version", ">> version"),
			new: []string{"[build 3/5] RUN echo 1 >> version", mk}, unknown: []string{version, conf, hello},
			why: "step [build 3/5] RUN echo 1 >> version: Dockerfile line 5 changed",
		},
		{name: "heredoc", files: dockerfile("hi\n", "ho\n"), new: []string{hello}, why: "step " + hello + ": Dockerfile line 11 changed"},
		{name: "comment", files: dockerfile("LABEL", "# why\nLABEL")},
		{name: "configuration", files: dockerfile("LABEL a=b", "LABEL a=c"), why: "the image's configuration changed (CMD, ENTRYPOINT, LABEL, EXPOSE or the like)"},
		{
			name: "base", edit: func(_ string, r *Request) error {
				r.Resolve = func(ctx context.Context, name, p string) (Image, error) {
					return onRecord(ctx, name+"x", p)
				}
				return nil
			},
			new: []string{"[context debian:12] OCI load from client", "[build 1/5] WORKDIR /src", copySrc, echo, mk, version, conf, hello},
			why: "step [context debian:12] OCI load from client: base debian:12 changed",
		},
		{
			name: "base unsure", edit: func(_ string, r *Request) error {
				r.Resolve = func(ctx context.Context, name, p string) (Image, error) {
					img, err := onRecord(ctx, name, p)
					img.Unsure = "the tag may have moved"
					return img, err
				}
				return nil
			},
			unknown: []string{"[context debian:12] OCI load from client", "[build 1/5] WORKDIR /src", copySrc, echo, mk, version, conf, hello},
			why:     "step [context debian:12] OCI load from client: the tag may have moved",
		},
		{name: "target", edit: func(_ string, r *Request) error { r.Build.Target = "build"; return nil }, why: "the image's configuration changed (CMD, ENTRYPOINT, LABEL, EXPOSE or the like)"},
		{
			name: "no cache", edit: func(_ string, r *Request) error { r.Build.NoCache = true; return nil },
			new: []string{copySrc, echo, mk, version, conf, hello}, why: "step " + copySrc + ": its cache is turned off",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, sampleFiles())
			r := request(dir)
			before, final := mustSteps(t, r)
			built := map[digest.Digest]bool{final.Key: true}
			for _, s := range before {
				built[s.Key] = true
				built[s.Loose] = true
			}
			write(t, dir, tc.files)
			if tc.edit != nil {
				if err := tc.edit(dir, &r); err != nil {
					t.Fatal(err)
				}
			}
			after, now := mustSteps(t, r)
			p := Predict(after, now, func(d digest.Digest) bool { return built[d] }, before)
			var isNew, unknown []string
			for _, v := range p.Steps {
				switch v.State {
				case Rebuilt:
					isNew = append(isNew, v.Step)
				case Unknown:
					unknown = append(unknown, v.Step)
				}
			}
			if got, want := fmt.Sprintf("%q", isNew), fmt.Sprintf("%q", tc.new); got != want {
				t.Errorf("rebuilt\ngot  %s\nwant %s", got, want)
			}
			if got, want := fmt.Sprintf("%q", unknown), fmt.Sprintf("%q", tc.unknown); got != want {
				t.Errorf("unknown\ngot  %s\nwant %s", got, want)
			}
			if p.Reason != tc.why {
				t.Errorf("reason\ngot  %s\nwant %s", p.Reason, tc.why)
			}
		})
	}
}

func TestStepsErrors(t *testing.T) {
	for _, tc := range []struct {
		name, file, want string
		edit             func(*Request)
	}{
		{name: "missing source", file: "FROM a\nRUN x\nCOPY nothing /\n", want: `Dockerfile:3: there is no "nothing" in the build context, or .dockerignore leaves it out`},
		{name: "missing mount", file: "FROM a\nRUN --mount=type=bind,source=no,target=/x x\n", want: `Dockerfile:2: there is no "no" in the build context, or .dockerignore leaves it out`},
		{name: "syntax", file: "FROM a\nCOPPY a b\n", want: `Dockerfile:2: unknown instruction: COPPY (did you mean COPY?)`},
		{name: "target", file: "FROM a AS b\n", edit: func(r *Request) { r.Build.Target = "c" }, want: `Dockerfile: there is no stage "c": its stages are b`},
		{name: "expansion", file: "FROM a\nCOPY ${X:?must be set} /\n", want: `Dockerfile:2: failed to process "${X:?must": syntax error: missing '}'`},
		{name: "no such directory", file: "FROM a\n", edit: func(r *Request) { r.Build.AdditionalContexts = map[string]string{"lib": "nowhere"} }, want: `Dockerfile: additional_contexts: lib: "nowhere" is no directory`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"Dockerfile": tc.file})
			r := request(dir)
			if tc.edit != nil {
				tc.edit(&r)
			}
			_, _, err := Steps(t.Context(), r)
			var se *SyntaxError
			if !errors.As(err, &se) || se.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

func BenchmarkSmall(b *testing.B) {
	dir := b.TempDir()
	write(b, dir, sampleFiles())
	r := request(dir)
	for b.Loop() {
		mustSteps(b, r)
	}
}

// A context of 2,000 files, read for the first time and again.
func BenchmarkSteps(b *testing.B) {
	dir := b.TempDir()
	files := map[string]string{"Dockerfile": "FROM a\nCOPY . /app\nRUN make\n"}
	for i := range 2000 {
		files[fmt.Sprintf("d%d/f%d", i%50, i)] = strings.Repeat(fmt.Sprintf("line %d\n", i), 500)
	}
	write(b, dir, files)
	var stored Digests
	for _, tc := range []struct {
		name    string
		digests func() *Digests
	}{
		{"cold", func() *Digests { return nil }},
		{"warm", func() *Digests { return &stored }},
	} {
		b.Run(tc.name, func(b *testing.B) {
			r := request(dir)
			if r.Digests = tc.digests(); r.Digests != nil {
				time.Sleep(settled) // only what has settled is remembered
				mustSteps(b, r)
			}
			for b.Loop() {
				mustSteps(b, r)
			}
		})
	}
}

func TestStepsEdges(t *testing.T) {
	t.Run("empty context", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, dir, map[string]string{"Dockerfile": "FROM a\nCOPY --from=lib . /x\n"})
		r := request(dir)
		r.Build.AdditionalContexts = map[string]string{"lib": "empty"}
		if steps, _ := mustSteps(t, r); len(steps) != 2 {
			t.Errorf("%+v", steps)
		}
	})
	t.Run("scratch alone", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, map[string]string{"Dockerfile": "FROM scratch\nLABEL a=b\n"})
		if steps, final := mustSteps(t, request(dir)); len(steps) != 0 || final.Key == "" {
			t.Errorf("%+v %+v", steps, final)
		}
	})
	t.Run("image of the pipeline that is to be rebuilt", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, map[string]string{"Dockerfile": "FROM base\nRUN x\n"})
		r := request(dir)
		r.Build.AdditionalContexts = map[string]string{"base": "image:base"}
		r.Resolve = func(_ context.Context, name, _ string) (Image, error) {
			if name != "image:base" {
				t.Errorf("asked for %s", name)
			}
			return Image{Unsure: "image base is to be rebuilt"}, nil
		}
		steps, final := mustSteps(t, r)
		if steps[1].Unknown != "image base is to be rebuilt" || final.Unknown == "" {
			t.Errorf("%+v %+v", steps, final)
		}
	})
	t.Run("unpinned and pinned downloads", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, map[string]string{"Dockerfile": "FROM scratch\nADD https://example.org/f /f\nADD --checksum=sha256:" + strings.Repeat("a", 64) + " https://example.org/g /g\nADD https://example.org/r.git#main /r\n"})
		steps, _ := mustSteps(t, request(dir))
		for _, s := range steps {
			if !strings.Contains(s.Unknown, "https://example.org/f") && s.Line == 2 || strings.Contains(s.Unknown, "/g ") {
				t.Errorf("%+v", s)
			}
		}
	})
	t.Run("stored", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, sampleFiles())
		steps, _ := mustSteps(t, request(dir))
		data, err := json.Marshal(steps)
		if err != nil {
			t.Fatal(err)
		}
		var back []Step
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if why := Explain(back, steps); why != "" {
			t.Errorf("a stored list differs: %s", why)
		}
	})
}
