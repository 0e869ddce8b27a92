package registry

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layoutDir writes a layout with the given entries of index.json.
func layoutDir(t testing.TB, s store, manifests ...ocispec.Descriptor) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, b []byte) {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for d, b := range s {
		write(blobPath(ocispec.Descriptor{Digest: d}), b)
	}
	index, err := json.Marshal(ocispec.Index{Manifests: manifests})
	if err != nil {
		t.Fatal(err)
	}
	write("index.json", index)
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return dir
}

func named(d ocispec.Descriptor, name string) ocispec.Descriptor {
	d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	return d
}

func linux(arch string) *ocispec.Platform { return &ocispec.Platform{OS: "linux", Architecture: arch} }

func TestLayoutChoosesImage(t *testing.T) {
	s := store{}
	one, two := s.image(t, "amd64", "one"), s.image(t, "amd64", "two")
	arm := s.image(t, "arm64", "arm")
	index := s.index(t, "amd64", "arm64")
	onArm := arm
	onArm.Platform = linux("arm64")
	var x ocispec.Index
	if err := json.Unmarshal(s[index.Digest], &x); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		manifests []ocispec.Descriptor
		o         OpenOptions
		want      digest.Digest
		err       []string
	}{
		"only one, any name":     {[]ocispec.Descriptor{named(one, "v1")}, OpenOptions{Image: "base"}, one.Digest, nil},
		"by tag":                 {[]ocispec.Descriptor{named(one, "v1"), named(two, "v2")}, OpenOptions{Image: "v2"}, two.Digest, nil},
		"by reference":           {[]ocispec.Descriptor{named(one, "docker.io/library/app:v1"), two}, OpenOptions{Image: "app:v1"}, one.Digest, nil},
		"by digest":              {[]ocispec.Descriptor{one, two}, OpenOptions{Image: two.Digest.String()}, two.Digest, nil},
		"platforms side by side": {[]ocispec.Descriptor{one, onArm}, OpenOptions{Platform: linux("arm64")}, arm.Digest, nil},
		"index as it is":         {[]ocispec.Descriptor{index}, OpenOptions{}, index.Digest, nil},
		"platform of an index":   {[]ocispec.Descriptor{index}, OpenOptions{Platform: linux("arm64")}, x.Manifests[1].Digest, nil},
		"several":                {[]ocispec.Descriptor{named(one, "v1"), named(two, "v2")}, OpenOptions{Image: "v3"}, "", []string{"several images", "v1, v2"}},
		"several, nameless":      {[]ocispec.Descriptor{one, onArm}, OpenOptions{}, "", []string{one.Digest.String(), "(linux/arm64)"}},
		"one name twice":         {[]ocispec.Descriptor{named(one, "v1"), named(two, "v1")}, OpenOptions{Image: "v1"}, "", []string{`several images are called "v1"`, "by its digest"}},
		"none":                   {nil, OpenOptions{}, "", []string{"no image in it"}},
		"platform not there":     {[]ocispec.Descriptor{index}, OpenOptions{Platform: linux("s390x")}, "", []string{"no image for linux/s390x", "linux/amd64, linux/arm64"}},
		"wrong platform":         {[]ocispec.Descriptor{arm}, OpenOptions{Platform: linux("amd64")}, "", []string{"for linux/arm64, not for linux/amd64"}},
		"config given":           {[]ocispec.Descriptor{one}, OpenOptions{Config: Config{User: "1"}}, "", []string{"change it in a Dockerfile"}},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := openTemp(t, layoutDir(t, s, tt.manifests...), tt.o)
			if tt.err != nil {
				wantError(t, err, tt.err...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if a.Target.Digest != tt.want {
				t.Errorf("chose %s, want %s", a.Target.Digest, tt.want)
			}
		})
	}
}

func TestBadLayout(t *testing.T) {
	for name, tt := range map[string]struct {
		harm func(t *testing.T, dir string, layer, config string)
		want string
	}{
		"no layer":     {func(t *testing.T, _, layer, _ string) { must(t, os.Remove(layer)) }, "is missing; copy the image with all its layers"},
		"no config":    {func(t *testing.T, _, _, config string) { must(t, os.Remove(config)) }, "is missing"},
		"layer short":  {func(t *testing.T, _, layer, _ string) { must(t, os.Truncate(layer, 5)) }, "has 5 bytes instead of"},
		"no index":     {func(t *testing.T, dir, _, _ string) { must(t, os.Remove(dir+"/index.json")) }, "pack it with `tar"},
		"index broken": {func(t *testing.T, dir, _, _ string) { must(t, os.WriteFile(dir+"/index.json", []byte("{"), 0o600)) }, "index.json is not readable"},
		"index huge":   {func(t *testing.T, dir, _, _ string) { must(t, os.Truncate(dir+"/index.json", maxDocument+1)) }, "reads such documents up to"},
		"no version":   {func(t *testing.T, dir, _, _ string) { must(t, os.Remove(dir+"/oci-layout")) }, "oci-layout"},
		"version 2": {func(t *testing.T, dir, _, _ string) {
			must(t, os.WriteFile(dir+"/oci-layout", []byte(`{"imageLayoutVersion":"2"}`), 0o600))
		}, "slipway reads 1.0.0"},
		"layer is a directory": {func(t *testing.T, _, layer, _ string) {
			must(t, os.Remove(layer))
			must(t, os.Mkdir(layer, 0o750))
		}, "not a regular file"},
		"link out of it": {func(t *testing.T, dir, _, _ string) {
			secret := filepath.Join(t.TempDir(), "secret")
			must(t, os.WriteFile(secret, []byte("{}"), 0o600))
			must(t, os.Remove(dir+"/index.json"))
			must(t, os.Symlink(secret, dir+"/index.json"))
		}, "escapes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := store{}
			desc := s.image(t, "amd64", "one")
			dir := layoutDir(t, s, desc)
			var m ocispec.Manifest
			must(t, json.Unmarshal(s[desc.Digest], &m))
			tt.harm(t, dir, filepath.Join(dir, blobPath(m.Layers[0])), filepath.Join(dir, blobPath(m.Config)))
			_, err := openTemp(t, dir, OpenOptions{})
			wantError(t, err, "import "+dir, tt.want)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What is wrong inside the documents is found before anything is copied.
func TestLayoutWithBadDocuments(t *testing.T) {
	for name, tt := range map[string]struct {
		make func(s store) ocispec.Descriptor
		want string
	}{
		"climbs out": {func(store) ocispec.Descriptor {
			return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: "sha256:../../../etc/passwd", Size: 1}
		}, "is not a digest"},
		"layer climbs out": {func(s store) ocispec.Descriptor {
			return s.put(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"digest":"sha256:`+strings.Repeat("a", 64)+`"},"layers":[{"digest":"sha256:../../x"}]}`))
		}, "is not a digest"},
		"huge manifest": {func(store) ocispec.Descriptor {
			return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(""), Size: 1 << 60}
		}, "reads such documents up to"},
		"negative size": {func(store) ocispec.Descriptor {
			return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(""), Size: -1}
		}, "has the size -1"},
		"both index and manifest": {func(s store) ocispec.Descriptor {
			return s.put(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"digest":"sha256:`+strings.Repeat("a", 64)+`"},"layers":[],"manifests":[]}`))
		}, "both an index and a manifest"},
		"two media types": {func(s store) ocispec.Descriptor {
			return s.put(ocispec.MediaTypeImageManifest, []byte(`{"mediaType":"application/vnd.oci.image.index.v1+json"}`))
		}, "but is listed as"},
		"no config": {func(s store) ocispec.Descriptor {
			return s.put(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
		}, "names no config"},
		"schema 1": {func(s store) ocispec.Descriptor {
			return s.put("application/vnd.docker.distribution.manifest.v1+json", []byte(`{}`))
		}, "not an image; make it again with a current tool"},
		"layers and config disagree": {func(s store) ocispec.Descriptor {
			c := s.put(ocispec.MediaTypeImageConfig, []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:x"]}}`))
			return s.put(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"digest":"`+c.Digest.String()+`","size":`+itoa(c.Size)+`},"layers":[]}`))
		}, "the config lists 1 layers, the manifest 0"},
		"no platform": {func(s store) ocispec.Descriptor {
			c := s.put(ocispec.MediaTypeImageConfig, []byte(`{}`))
			return s.put(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"digest":"`+c.Digest.String()+`","size":`+itoa(c.Size)+`},"layers":[]}`))
		}, "does not say which platform"},
	} {
		t.Run(name, func(t *testing.T) {
			s := store{}
			desc := tt.make(s)
			_, err := openTemp(t, layoutDir(t, s, desc), OpenOptions{})
			wantError(t, err, tt.want)
		})
	}
}

func itoa(n int64) string { b, _ := json.Marshal(n); return string(b) }

func TestLayoutBlobWithWrongBytesIsRefusedWhenRead(t *testing.T) {
	s := store{}
	desc := s.image(t, "amd64", "one")
	layer := layersOf(t, s, desc)[0]
	s[layer.Digest] = bytes.Repeat([]byte("x"), int(layer.Size))
	a := mustOpen(t, layoutDir(t, s, desc), OpenOptions{})
	_, err := ingest(t.Context(), a.Blobs, a.Target)
	wantError(t, err, "is damaged", layer.Digest.String())
}

func TestNestedIndexesHaveAnEnd(t *testing.T) {
	s := store{}
	desc := s.index(t, "amd64")
	for range maxDepth + 1 {
		desc = s.putJSON(t, ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{desc}})
	}
	_, err := openTemp(t, layoutDir(t, s, desc), OpenOptions{})
	wantError(t, err, "nested more than")
}
