package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slipway/internal/need"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type exporter func(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, path string, o ExportOptions) error

func layoutTar(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, path string, o ExportOptions) error {
	o.Tar = true
	return ExportLayout(ctx, blobs, desc, path, o)
}

func exporters() map[string]exporter {
	return map[string]exporter{"directory": ExportLayout, "tar": layoutTar, "docker": ExportArchive}
}

func TestExportThenImportIsTheSameImage(t *testing.T) {
	s := store{}
	machine := platforms.DefaultSpec().Architecture
	for what, desc := range map[string]ocispec.Descriptor{
		"image": s.image(t, "riscv64", "one", "two", "one"), "empty image": s.image(t, "amd64"), "index": s.index(t, machine, "s390x"),
	} {
		for how, export := range exporters() {
			t.Run(what+" as "+how, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "out")
				var done, total int64
				err := export(t.Context(), s.blobs, desc, path, ExportOptions{Name: "app:v1", Progress: func(d, n int64) { done, total = d, n }})
				if err != nil {
					t.Fatal(err)
				}
				if done != total || total == 0 {
					t.Errorf("progress ended at %d of %d", done, total)
				}
				a := mustOpen(t, path, OpenOptions{})
				if a.Kind != Layout || a.Target.Digest != desc.Digest || a.Name != "docker.io/library/app:v1" {
					t.Errorf("got %s %s %q, want %s", a.Kind, a.Target.Digest, a.Name, desc.Digest)
				}
				got, err := ingest(t.Context(), a.Blobs, a.Target)
				if err != nil {
					t.Fatal(err)
				}
				want, err := ingest(t.Context(), s.blobs, desc)
				if err != nil {
					t.Fatal(err)
				}
				if len(got) != len(want) {
					t.Errorf("%d blobs came back, want %d", len(got), len(want))
				}
			})
		}
	}
}

func TestExportIsDeterministic(t *testing.T) {
	s := store{}
	desc := s.image(t, "amd64", "one", "two")
	for _, export := range []exporter{layoutTar, ExportArchive} {
		var first []byte
		for range 2 {
			path := filepath.Join(t.TempDir(), "out")
			if err := export(t.Context(), s.blobs, desc, path, ExportOptions{}); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if first != nil && !bytes.Equal(first, b) {
				t.Error("two exports of one image differ")
			}
			first = b
		}
	}
}

func TestExportDamagedImageLeavesNothing(t *testing.T) {
	for name, harm := range map[string]struct {
		do   func(store, digest.Digest)
		want string
	}{
		"missing": {func(s store, d digest.Digest) { delete(s, d) }, "is missing"},
		"short":   {func(s store, d digest.Digest) { s[d] = s[d][:3] }, "bytes are missing"},
		"long":    {func(s store, d digest.Digest) { s[d] = append(s[d], 'x') }, "longer than"},
		"changed": {func(s store, d digest.Digest) { s[d] = bytes.Repeat([]byte("x"), len(s[d])) }, "have the digest"},
	} {
		for how, export := range exporters() {
			t.Run(name+" "+how, func(t *testing.T) {
				s := store{}
				desc := s.image(t, "amd64", "one")
				harm.do(s, layersOf(t, s, desc)[0].Digest)
				dir := t.TempDir()
				err := export(t.Context(), s.blobs, desc, filepath.Join(dir, "out"), ExportOptions{})
				wantError(t, err, harm.want, "fetch or build the image again")
				if left, _ := os.ReadDir(dir); len(left) > 0 {
					t.Errorf("left %v behind", left)
				}
			})
		}
	}
}

func layersOf(t testing.TB, s store, desc ocispec.Descriptor) []ocispec.Descriptor {
	t.Helper()
	var m ocispec.Manifest
	if err := json.Unmarshal(s[desc.Digest], &m); err != nil {
		t.Fatal(err)
	}
	return m.Layers
}

func TestExportOverwritesOnlyWhatItMay(t *testing.T) {
	s := store{}
	old, desc := s.image(t, "amd64", "old"), s.image(t, "amd64", "new")
	for how, export := range exporters() {
		t.Run(how, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out")
			if err := export(t.Context(), s.blobs, old, path, ExportOptions{}); err != nil {
				t.Fatal(err)
			}
			err := export(t.Context(), s.blobs, desc, path, ExportOptions{})
			wantError(t, err, "exists already")
			if got := mustOpen(t, path, OpenOptions{}); got.Target.Digest != old.Digest {
				t.Error("a refused export changed what was there")
			}
			if err := export(t.Context(), s.blobs, desc, path, ExportOptions{Overwrite: true}); err != nil {
				t.Fatal(err)
			}
			if got := mustOpen(t, path, OpenOptions{}); got.Target.Digest != desc.Digest {
				t.Error("the export did not replace what was there")
			}
			if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
				t.Errorf("left %v behind", left)
			}
		})
	}
	t.Run("someone's directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, export := range exporters() {
			err := export(t.Context(), s.blobs, desc, dir, ExportOptions{Overwrite: true})
			wantError(t, err, dir, "choose another name")
		}
		if _, err := os.Stat(filepath.Join(dir, "thesis.tex")); err != nil {
			t.Error(err)
		}
	})
	t.Run("no such directory", func(t *testing.T) {
		for _, export := range exporters() {
			err := export(t.Context(), s.blobs, desc, filepath.Join(t.TempDir(), "a", "b"), ExportOptions{})
			wantError(t, err, "make the directory first")
		}
	})
}

func TestExportCanceled(t *testing.T) {
	s := store{}
	desc := s.image(t, "amd64", "one")
	why := errors.New("the user pressed Ctrl-C")
	for how, export := range exporters() {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		dir := t.TempDir()
		if err := export(ctx, s.blobs, desc, filepath.Join(dir, "out"), ExportOptions{}); !errors.Is(err, why) {
			t.Errorf("%s: %v, want the cause", how, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: left %v behind", how, left)
		}
	}
}

func TestExportNames(t *testing.T) {
	for name, want := range map[string]struct {
		full, tag, err string
	}{
		"":                              {},
		"app":                           {full: "docker.io/library/app:latest", tag: "latest"},
		"example.com/team/app":          {full: "example.com/team/app:latest", tag: "latest"},
		"example.com:5000/app:v1":       {full: "example.com:5000/app:v1", tag: "v1"},
		"app@" + strings.Repeat("a", 9): {err: "is not an image name"},
		"App":                           {err: "is not an image name"},
		"app:v1@sha256:" + strings.Repeat("a", 64): {full: "docker.io/library/app:v1", tag: "v1"},
	} {
		full, tag, err := parseName(name)
		if full != want.full || tag != want.tag || (err != nil) != (want.err != "") {
			t.Errorf("%q: got %q, %q, %v; want %+v", name, full, tag, err, want)
		}
		if want.err != "" {
			wantError(t, err, want.err)
		}
	}
}

// Independent tools must read what slipway writes, and find the same digest.
func TestSkopeoReadsExports(t *testing.T) {
	skopeo := need.Tool(t, "skopeo")
	s := store{}
	desc := s.image(t, "amd64", "one", "two")
	dir := t.TempDir()
	layout, archive := filepath.Join(dir, "layout"), filepath.Join(dir, "docker.tar")
	if err := ExportLayout(t.Context(), s.blobs, desc, layout, ExportOptions{Name: "app:v1"}); err != nil {
		t.Fatal(err)
	}
	if err := ExportArchive(t.Context(), s.blobs, desc, archive, ExportOptions{Name: "app:v1"}); err != nil {
		t.Fatal(err)
	}
	for ref, same := range map[string]bool{"oci:" + layout + ":v1": true, "oci-archive:" + archive + ":v1": true, "docker-archive:" + archive: false} {
		out := run(t, skopeo, "inspect", ref)
		var got struct {
			Digest digest.Digest
			Layers []string
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		// A docker archive has no manifest, so skopeo makes one up; config and layers stay.
		if same && got.Digest != desc.Digest || len(got.Layers) != 2 {
			t.Errorf("skopeo sees %s with %d layers in %s, want %s", got.Digest, len(got.Layers), ref, desc.Digest)
		}
		to := filepath.Join(t.TempDir(), "copy")
		run(t, skopeo, "--insecure-policy", "copy", "--quiet", ref, "oci:"+to)
	}
}

func TestUmociUnpacksExport(t *testing.T) {
	umoci := need.Tool(t, "umoci")
	s := store{}
	desc := s.image(t, "amd64", "one", "two")
	layout, bundle := filepath.Join(t.TempDir(), "layout"), filepath.Join(t.TempDir(), "bundle")
	if err := ExportLayout(t.Context(), s.blobs, desc, layout, ExportOptions{Name: "app:v1"}); err != nil {
		t.Fatal(err)
	}
	run(t, umoci, "unpack", "--rootless", "--image", layout+":v1", bundle)
	for i, want := range []string{"one", "two"} {
		got, err := os.ReadFile(filepath.Join(bundle, "rootfs", "file"+string(rune('0'+i))))
		if err != nil || string(got) != want {
			t.Errorf("file%d is %q (%v), want %q", i, got, err, want)
		}
	}
}

// What skopeo writes, slipway must read with the same digest.
func TestImportOfSkopeosArchives(t *testing.T) {
	skopeo := need.Tool(t, "skopeo")
	s := store{}
	desc := s.image(t, "amd64", "one", "two")
	dir := t.TempDir()
	layout := filepath.Join(dir, "layout")
	if err := ExportLayout(t.Context(), s.blobs, desc, layout, ExportOptions{Name: "app:v1"}); err != nil {
		t.Fatal(err)
	}
	for to, kind := range map[string]Kind{
		"oci:" + dir + "/copy:v1":                      Layout,
		"oci-archive:" + dir + "/oci.tar:v1":           Layout,
		"docker-archive:" + dir + "/docker.tar:app:v1": DockerArchive,
	} {
		run(t, skopeo, "--insecure-policy", "copy", "--quiet", "oci:"+layout+":v1", to)
		a := mustOpen(t, strings.Split(to, ":")[1], OpenOptions{Image: "app:v1"})
		got, err := ingest(t.Context(), a.Blobs, a.Target)
		if err != nil {
			t.Fatal(err)
		}
		if a.Kind != kind || kind == Layout && a.Target.Digest != desc.Digest || len(got) != 4 {
			t.Errorf("%s: %s %s with %d blobs", to, a.Kind, a.Target.Digest, len(got))
		}
		want := configOf(t, s, desc).RootFS.DiffIDs
		if c := configOf(t, got, a.Target); !slices.Equal(c.RootFS.DiffIDs, want) {
			t.Errorf("%s: layers %v, want %v", to, c.RootFS.DiffIDs, want)
		}
	}
}

func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

func TestVerifiedFailsForReadersThatCount(t *testing.T) {
	s := store{}
	d := s.put("x", []byte("hello"))
	s[d.Digest] = []byte("jello")
	r, err := openVerified(t.Context(), s.blobs, d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 5)); err == nil {
		t.Error("a consumer that reads exactly the size sees no damage")
	}
}
