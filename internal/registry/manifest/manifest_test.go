package manifest

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const some = `{"mediaType":"x/y","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}`

func TestParse(t *testing.T) {
	for name, tt := range map[string]struct {
		mediaType, doc string
		want           string // part of the error
		kind, artifact string
		children       int
	}{
		"image":            {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"config":` + some + `,"layers":[` + some + `]}`, "", ocispec.MediaTypeImageManifest, "x/y", 2},
		"own word":         {"", `{"schemaVersion":2,"mediaType":"` + TypeDockerManifest + `","config":` + some + `}`, "", TypeDockerManifest, "x/y", 1},
		"artifact":         {"", `{"schemaVersion":2,"artifactType":"a/b","config":` + some + `,"subject":` + some + `}`, "", ocispec.MediaTypeImageManifest, "a/b", 1},
		"index":            {"", `{"schemaVersion":2,"manifests":[` + some + `]}`, "", ocispec.MediaTypeImageIndex, "", 1},
		"empty index":      {"", `{"schemaVersion":2,"manifests":[]}`, "", ocispec.MediaTypeImageIndex, "", 0},
		"other type":       {TypeDockerList, `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`, "calls itself", "", "", 0},
		"both":             {ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[],"layers":[]}`, "both an index and a manifest", "", "", 0},
		"both, other way":  {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"manifests":[],"config":` + some + `}`, "both an index and a manifest", "", "", 0},
		"no config":        {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"layers":[]}`, "names no config", "", "", 0},
		"schema 1":         {ocispec.MediaTypeImageManifest, `{"schemaVersion":1,"config":` + some + `}`, "schema version 1", "", "", 0},
		"unknown":          {"text/html", `{"schemaVersion":2}`, "not a kind of manifest", "", "", 0},
		"not JSON":         {ocispec.MediaTypeImageManifest, `<html>`, "not a readable manifest", "", "", 0},
		"path in a digest": {"", `{"schemaVersion":2,"config":{"digest":"sha256:../../etc/passwd"}}`, "is not a digest", "", "", 0},
		"negative size":    {"", strings.ReplaceAll(`{"schemaVersion":2,"config":`+some+`}`, `"size":0`, `"size":-1`), "the size -1", "", "", 0},
		"subject":          {"", `{"schemaVersion":2,"config":` + some + `,"subject":{"digest":"md5:00"}}`, "is not a digest", "", "", 0},
	} {
		m, err := Parse(tt.mediaType, []byte(tt.doc))
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", name, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.MediaType != tt.kind || m.ArtifactType != tt.artifact || len(m.Children()) != tt.children {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// FuzzParse: what is accepted has digests that are safe as file names, and is
// either an index or a manifest.
func FuzzParse(f *testing.F) {
	f.Add("", `{"schemaVersion":2,"config":`+some+`,"layers":[`+some+`],"subject":`+some+`}`)
	f.Add(ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[`+some+`]}`)
	f.Add("", `{"schemaVersion":2,"Manifests":[],"MANIFESTS":[`+some+`]}`)
	f.Fuzz(func(t *testing.T, mediaType, doc string) {
		m, err := Parse(mediaType, []byte(doc))
		if err != nil {
			return
		}
		if (m.Config == nil) == (m.Manifests == nil) && !IsIndex(m.MediaType) {
			t.Errorf("neither or both: %+v", m)
		}
		for _, c := range m.Children() {
			if strings.ContainsAny(c.Digest.Encoded(), "./\\") || digest.Digest(c.Digest).Validate() != nil {
				t.Errorf("digest %q came through", c.Digest)
			}
		}
	})
}
