package builder

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rs/zerolog"

	"slipway/internal/need"
	"slipway/pipeline"
)

func TestMain(m *testing.M) {
	for k, v := range Environment() {
		if err := os.Setenv(k, v); err != nil {
			panic(err)
		}
	}
	os.Exit(need.Run(m))
}

// runcPath is the runtime that make build leaves in bin.
func runcPath(tb testing.TB) string {
	tb.Helper()
	need.Root(tb)
	for _, p := range []string{"../bin/slipway-runc", "runc"} {
		if found, err := exec.LookPath(p); err == nil {
			abs, err := filepath.Abs(found)
			if err != nil {
				tb.Fatal(err)
			}
			return abs
		}
	}
	need.Have(tb, "runc", errors.New("no bin/slipway-runc; run make build"))
	return ""
}

// testRoot is a directory that a step's user can walk to.
func testRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "slipway-builder-")
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if left := mountsBelow(tb, dir); len(left) > 0 {
			tb.Errorf("mounts left behind: %v", left)
			if err := unmountBelow(dir); err != nil {
				tb.Error(err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

func mountsBelow(tb testing.TB, dir string) []string {
	tb.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, l := range strings.Split(string(data), "\n") {
		if strings.Contains(l, dir+"/") {
			out = append(out, l)
		}
	}
	return out
}

// cgroupOf is a parent cgroup no other test has; it is removed at the end.
func cgroupOf(tb testing.TB, root string) string {
	tb.Helper()
	top := "/slipway-test-" + digest.FromString(root).Encoded()[:8]
	tb.Cleanup(func() {
		for _, h := range hierarchies() {
			if _, err := os.Stat(h + top); err != nil {
				continue
			}
			if err := removeCgroup(context.Background(), h+top); err != nil {
				tb.Error(err)
			}
		}
	})
	return top + "/build"
}

func testOptions(tb testing.TB) Options {
	tb.Helper()
	runc := runcPath(tb)
	root := testRoot(tb)
	log := zerolog.Nop()
	if os.Getenv("SLIPWAY_TEST_LOG") != "" {
		log = zerolog.New(os.Stderr)
	}
	return Options{Root: filepath.Join(root, "builder"), Runc: runc, Cgroup: cgroupOf(tb, root), Log: log}
}

func open(tb testing.TB, o Options) *Builder {
	tb.Helper()
	b, err := Open(context.Background(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return b
}

// fresh is a builder with busybox:1 imported.
func fresh(tb testing.TB) *Builder {
	tb.Helper()
	b := open(tb, testOptions(tb))
	importBusybox(tb, b, "busybox:1")
	return b
}

func importBusybox(tb testing.TB, b *Builder, name string) pipeline.Image {
	tb.Helper()
	target, blobs := busybox(tb)
	img, err := b.Ingest(context.Background(), name, target, blobs.open)
	if err != nil {
		tb.Fatal(err)
	}
	return img
}

type memory map[digest.Digest][]byte

func (m memory) open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	data, ok := m[d.Digest]
	if !ok {
		return nil, fmt.Errorf("no blob %s", d.Digest)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (m memory) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	m[d.Digest] = data
	return d
}

// busybox makes an image of one layer from the machine's static busybox.
func busybox(tb testing.TB) (ocispec.Descriptor, memory) {
	tb.Helper()
	prog, err := os.ReadFile("/bin/busybox")
	need.Have(tb, "busybox", err)
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	put := func(h tar.Header, body []byte) {
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			tb.Fatal(err)
		}
	}
	for _, d := range []string{"bin/", "etc/", "tmp/", "dev/", "proc/", "sys/", "root/"} {
		put(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	put(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, prog)
	put(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"))
	put(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\napp:x:1000:\n"))
	for _, a := range strings.Fields("sh ls cat echo mkdir rm cp mv ln id stat sleep true false touch date sha256sum wc env ip ping nc mount chmod chown find sort head tail grep sed tr dd sync ps kill yes seq test readlink hostname od") {
		put(tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	blobs := memory{}
	layer := blobs.add(ocispec.MediaTypeImageLayerGzip, gzipped(tb, raw.Bytes()))
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/sh"}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(raw.Bytes())}},
		History:  []ocispec.History{{CreatedBy: "busybox"}},
	}
	return blobs.image(tb, config, layer), blobs
}

func (m memory) image(tb testing.TB, config ocispec.Image, layers ...ocispec.Descriptor) ocispec.Descriptor {
	tb.Helper()
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: m.add(ocispec.MediaTypeImageConfig, jsonOf(tb, config)), Layers: layers,
	}
	return m.add(ocispec.MediaTypeImageManifest, jsonOf(tb, manifest))
}

func jsonOf(tb testing.TB, v any) []byte {
	tb.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func gzipped(tb testing.TB, data []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := z.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// project writes files below a new directory.
func project(tb testing.TB, files map[string]string) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func build(tb testing.TB, b *Builder, r Request) Output {
	tb.Helper()
	if r.Name == "" {
		r.Name = "app"
	}
	out, err := b.Build(context.Background(), r)
	if err != nil {
		var be *BuildError
		if errors.As(err, &be) {
			tb.Fatalf("build: %v\n%s%s", err, be.Source, be.LastOutput)
		}
		tb.Fatalf("build: %v", err)
	}
	return out
}

// fileIn reads a file of an image.
func fileIn(tb testing.TB, b *Builder, img pipeline.Image, path string) string {
	tb.Helper()
	fs, err := b.Rootfs(context.Background(), img, "")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if err := fs.Release(); err != nil {
			tb.Error(err)
		}
	}()
	for _, dir := range fs.Lowers {
		if data, err := os.ReadFile(filepath.Join(dir, path)); err == nil {
			return string(data)
		}
	}
	tb.Fatalf("no %s in the image", path)
	return ""
}
