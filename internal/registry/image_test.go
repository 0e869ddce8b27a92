package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// store is a Blobs over bytes.
type store map[digest.Digest][]byte

func (s store) blobs(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	b, ok := s[d.Digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s store) put(mediaType string, b []byte) ocispec.Descriptor {
	d := descriptorOf(mediaType, b)
	s[d.Digest] = b
	return d
}

func (s store) putJSON(t testing.TB, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return s.put(mediaType, b)
}

// image adds an image with one gzip layer per element of layers, each holding one file.
func (s store) image(t testing.TB, arch string, layers ...string) ocispec.Descriptor {
	t.Helper()
	c := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	m.SchemaVersion = 2
	for i, l := range layers {
		raw := tarOf(t, file(fmt.Sprintf("file%d", i), l))
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(raw))
		c.History = append(c.History, ocispec.History{CreatedBy: "test"})
		m.Layers = append(m.Layers, s.put(ocispec.MediaTypeImageLayerGzip, pack(t, gzipped, raw)))
	}
	m.Config = s.putJSON(t, ocispec.MediaTypeImageConfig, c)
	return s.putJSON(t, ocispec.MediaTypeImageManifest, m)
}

// index adds an index of one image per architecture.
func (s store) index(t testing.TB, archs ...string) ocispec.Descriptor {
	t.Helper()
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	x.SchemaVersion = 2
	for _, a := range archs {
		d := s.image(t, a, "shared", "for "+a)
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: a}
		x.Manifests = append(x.Manifests, d)
	}
	return s.putJSON(t, ocispec.MediaTypeImageIndex, x)
}

// entry is a file of a tar.
type entry struct {
	tar.Header
	body []byte
}

func file(name, body string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}, []byte(body)}
}

func symlink(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: to}, nil}
}

func directory(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, nil}
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pack(t testing.TB, c compression, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch c {
	case plain:
		return b
	case gzipped:
		w = gzip.NewWriter(&out)
	case zstded:
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	default:
		t.Fatalf("no packer for %s", c)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func writeTemp(t testing.TB, b []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// openTemp opens path with a temporary directory that must be empty after Close.
func openTemp(t testing.TB, path string, o OpenOptions) (*Archive, error) {
	t.Helper()
	o.TempDir = t.TempDir()
	a, err := OpenFile(t.Context(), path, o)
	check := func() {
		left, _ := os.ReadDir(o.TempDir)
		if len(left) > 0 {
			t.Errorf("%s holds %d files after Close", o.TempDir, len(left))
		}
	}
	if err != nil {
		check()
		return nil, err
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		check()
	})
	return a, nil
}

func mustOpen(t testing.TB, path string, o OpenOptions) *Archive {
	t.Helper()
	a, err := openTemp(t, path, o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ingest copies everything under d, as a store does, and fails where bytes are damaged.
func ingest(ctx context.Context, blobs Blobs, d ocispec.Descriptor) (store, error) {
	s := store{}
	return s, walk(ctx, blobs, d, func(d ocispec.Descriptor, _ []byte) error {
		r, err := blobs(ctx, d)
		if err != nil {
			return err
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		s[d.Digest] = b
		return err
	})
}

// wantError checks that err says all of parts and ends in a next step.
func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q lacks %q", err, p)
		}
	}
}
