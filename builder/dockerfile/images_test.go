package dockerfile_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rs/zerolog"

	"slipway/builder"
	"slipway/builder/dockerfile"
	"slipway/internal/need"
)

func openBuilder(t *testing.T) *builder.Builder {
	t.Helper()
	need.Root(t)
	runc, err := exec.LookPath("../../bin/slipway-runc")
	if err != nil {
		need.Have(t, "runc", fmt.Errorf("%w; run make build", err))
	}
	runc, err = filepath.Abs(runc)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.MkdirTemp("", "slipway-dockerfile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	// A step's user walks to its root file system.
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	cgroup := "/slipway-test-" + filepath.Base(root)
	b, err := builder.Open(context.Background(), builder.Options{
		Root: filepath.Join(root, "builder"), Runc: runc, Cgroup: cgroup + "/build", Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		removeCgroups(t, cgroup)
	})
	return b
}

func removeCgroups(t *testing.T, name string) {
	t.Helper()
	found, err := filepath.Glob("/sys/fs/cgroup/*" + name)
	if err != nil {
		t.Fatal(err)
	}
	for _, top := range append(found, "/sys/fs/cgroup"+name) {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		slices.Reverse(dirs)
		for _, dir := range dirs {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		}
	}
}

type blobs map[digest.Digest][]byte

func (b blobs) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b[d.Digest] = data
	return d
}

func (b blobs) json(t *testing.T, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b.add(mediaType, data)
}

// importBase makes busybox in one of several versions known by a name.
func (p *project) importBase(name string, version int) {
	p.t.Helper()
	b := blobs{}
	layer, diffID := baseLayer(p.t, b, version)
	config := b.json(p.t, ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Labels: map[string]string{"version": fmt.Sprint(version)}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
	})
	manifest := b.json(p.t, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{layer},
	})
	img, err := p.b.Ingest(context.Background(), name, manifest, func(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b[d.Digest])), nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ref, err := dockerfile.Normalize(name)
	if err != nil {
		p.t.Fatal(err)
	}
	p.images[ref.Name] = img
	p.configs[img.Descriptor.Digest] = b[config.Digest]
}

// baseLayer has the same files in odd and even versions, so that an image can
// change without its file system.
func baseLayer(t *testing.T, b blobs, version int) (ocispec.Descriptor, digest.Digest) {
	t.Helper()
	prog, err := os.ReadFile("/bin/busybox")
	need.Have(t, "busybox", err)
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	put := func(h tar.Header, body string) {
		t.Helper()
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin/", "etc/", "tmp/", "dev/", "proc/", "sys/", "root/"} {
		put(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, "")
	}
	put(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, string(prog))
	put(tar.Header{Name: "etc/version", Typeflag: tar.TypeReg, Mode: 0o644}, fmt.Sprint(version%2))
	for _, a := range []string{"sh", "cat", "echo"} {
		put(tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, "")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(raw.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.add(ocispec.MediaTypeImageLayerGzip, packed.Bytes()), digest.FromBytes(raw.Bytes())
}
