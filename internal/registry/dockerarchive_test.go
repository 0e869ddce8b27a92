package registry

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// saved is what `docker save` of before version 25 writes for one image.
func saved(t testing.TB, tag string, layers ...string) (entries []entry, manifest dockerImage, config []byte) {
	t.Helper()
	c := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	first := map[string]string{}
	for i, l := range layers {
		raw := tarOf(t, file("f", l))
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(raw))
		id := fmt.Sprintf("%064x", i+1)
		name := id + "/layer.tar"
		entries = append(entries, directory(id+"/"), file(id+"/VERSION", "1.0"))
		if other, ok := first[l]; ok {
			entries = append(entries, symlink(name, "../"+other))
		} else {
			entries = append(entries, file(name, string(raw)))
			first[l] = name
		}
		manifest.Layers = append(manifest.Layers, name)
	}
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	manifest.Config = digest.FromBytes(config).Encoded() + ".json"
	if tag != "" {
		manifest.RepoTags = []string{tag}
	}
	return append(entries, file(manifest.Config, string(config))), manifest, config
}

func savedTar(t testing.TB, entries []entry, images ...dockerImage) []byte {
	t.Helper()
	b, err := json.Marshal(images)
	if err != nil {
		t.Fatal(err)
	}
	return tarOf(t, append(entries, file(dockerManifestFile, string(b)), file("repositories", "{}"))...)
}

func TestDockerArchiveKeepsConfigAndLayers(t *testing.T) {
	entries, m, config := saved(t, "app:v1", "one", "two", "one")
	raw := savedTar(t, entries, m)
	for _, c := range []compression{plain, gzipped, zstded} {
		a := mustOpen(t, writeTemp(t, pack(t, c, raw)), OpenOptions{})
		if a.Kind != DockerArchive || a.Name != "app:v1" {
			t.Errorf("%s: opened as %s %q", c, a.Kind, a.Name)
		}
		s, err := ingest(t.Context(), a.Blobs, a.Target)
		if err != nil {
			t.Fatal(err)
		}
		var got ocispec.Manifest
		must(t, json.Unmarshal(s[a.Target.Digest], &got))
		if got.Config.Digest != digest.FromBytes(config) || got.Config.MediaType != ocispec.MediaTypeImageConfig {
			t.Errorf("%s: config became %+v", c, got.Config)
		}
		want := configOf(t, s, a.Target).RootFS.DiffIDs
		for i, l := range got.Layers {
			if l.Digest != want[i] || l.MediaType != ocispec.MediaTypeImageLayer {
				t.Errorf("%s: layer %d became %+v", c, i, l)
			}
		}
	}
}

func TestDockerArchiveWithPackedLayers(t *testing.T) {
	raw := tarOf(t, file("f", "one"))
	packed := pack(t, gzipped, raw)
	config := `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + digest.FromBytes(raw).String() + `"]}}`
	m := dockerImage{Config: "sha256:" + digest.FromString(config).Encoded(), Layers: []string{digest.FromBytes(packed).Encoded() + ".tar.gz"}}
	all := []entry{file(m.Config, config), file(m.Layers[0], string(packed))}
	a := mustOpen(t, writeTemp(t, savedTar(t, all, m)), OpenOptions{})
	s, err := ingest(t.Context(), a.Blobs, a.Target)
	must(t, err)
	var got ocispec.Manifest
	must(t, json.Unmarshal(s[a.Target.Digest], &got))
	if l := got.Layers[0]; l.Digest != digest.FromBytes(packed) || l.MediaType != ocispec.MediaTypeImageLayerGzip {
		t.Errorf("layer became %+v", l)
	}

	t.Run("of another image", func(t *testing.T) {
		all[1] = file(m.Layers[0], string(pack(t, gzipped, tarOf(t, file("f", "two")))))
		_, err := openTemp(t, writeTemp(t, savedTar(t, all, m)), OpenOptions{})
		wantError(t, err, m.Layers[0], "damaged: it unpacks to")
	})
}

func TestDockerArchiveOfSeveral(t *testing.T) {
	e1, m1, _ := saved(t, "docker.io/library/app:v1", "one")
	e2, m2, c2 := saved(t, "app:v2", "two")
	for i := range e2 { // both number their layers from 1
		e2[i].Name = strings.ReplaceAll(e2[i].Name, "0001/", "0009/")
	}
	m2.Layers[0] = strings.ReplaceAll(m2.Layers[0], "0001/", "0009/")
	path := writeTemp(t, savedTar(t, append(e1, e2...), m1, m2))
	a := mustOpen(t, path, OpenOptions{Image: "docker.io/library/app:v2"})
	s, err := ingest(t.Context(), a.Blobs, a.Target)
	must(t, err)
	if _, ok := s[digest.FromBytes(c2)]; !ok || a.Name != "app:v2" {
		t.Errorf("chose %q, want app:v2", a.Name)
	}
	_, err = openTemp(t, path, OpenOptions{Image: "base"})
	wantError(t, err, "several images", "docker.io/library/app:v1, app:v2")
}

func TestBadDockerArchive(t *testing.T) {
	entries, m, _ := saved(t, "app:v1", "one", "two")
	without := func(name string) (left []entry) {
		for _, e := range entries {
			if e.Name != name {
				left = append(left, e)
			}
		}
		return left
	}
	changed := func(name, body string) []entry { return append(without(name), file(name, body)) }
	fewer, climbing := m, m
	fewer.Layers = m.Layers[:1]
	climbing.Layers = []string{m.Layers[0], "../../../etc/passwd"}
	for name, tt := range map[string]struct {
		entries []entry
		image   dockerImage
		o       OpenOptions
		want    string
	}{
		"no layer":        {without(m.Layers[1]), m, OpenOptions{}, m.Layers[1] + " is missing from the archive"},
		"no config":       {without(m.Config), m, OpenOptions{}, m.Config + " is missing from the archive"},
		"config changed":  {changed(m.Config, "{}"), m, OpenOptions{}, "is damaged: its bytes have the digest"},
		"layers left out": {entries, fewer, OpenOptions{}, "lists 2 layers, manifest.json 1"},
		"climbs out":      {entries, climbing, OpenOptions{}, "../../../etc/passwd is missing from the archive"},
		"links in a ring": {append(without(m.Layers[0]), symlink(m.Layers[0], "../x"), symlink("x", m.Layers[0])), m, OpenOptions{}, "links in a row"},
		"config given":    {entries, m, OpenOptions{Config: Config{Env: []string{"A=1"}}}, "change it in a Dockerfile"},
		"wrong platform":  {entries, m, OpenOptions{Platform: linux("arm64")}, "for linux/amd64, not for linux/arm64"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openTemp(t, writeTemp(t, savedTar(t, tt.entries, tt.image)), tt.o)
			wantError(t, err, tt.want)
		})
	}
	t.Run("layer changed", func(t *testing.T) {
		a := mustOpen(t, writeTemp(t, savedTar(t, changed(m.Layers[1], string(tarOf(t, file("f", "owt")))), m)), OpenOptions{})
		_, err := ingest(t.Context(), a.Blobs, a.Target)
		wantError(t, err, "is damaged")
	})
	t.Run("cut off", func(t *testing.T) {
		b := savedTar(t, entries, m)
		_, err := openTemp(t, writeTemp(t, b[:len(b)-4000]), OpenOptions{})
		wantError(t, err, "cut off")
	})
}
