// Package manifest reads what a manifest or index names: config, layers,
// children, subject. It refuses documents that can be read in two ways, and it
// opens nothing: a document comes in as bytes.
package manifest

import (
	_ "crypto/sha512" // registers the second algorithm that the image spec allows
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxSize bounds a manifest in bytes: 4 MiB is what registries take at least
// (distribution-spec, "Pushing Manifests") and containerd reads at most.
const MaxSize = 4 << 20

// Docker's names for what the image spec took over. The bytes are the same.
const (
	TypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	TypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// IsIndex reports whether mediaType lists manifests.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == TypeDockerList
}

// IsImage reports whether mediaType is one image or artifact.
func IsImage(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == TypeDockerManifest
}

// Is reports whether mediaType is a manifest or an index.
func Is(mediaType string) bool { return IsIndex(mediaType) || IsImage(mediaType) }

// Manifest is what a document names.
type Manifest struct {
	MediaType    string
	ArtifactType string              // of the document, or the config's media type where it has none; "" for a plain index
	Config       *ocispec.Descriptor // nil for an index
	Layers       []ocispec.Descriptor
	Manifests    []ocispec.Descriptor // of an index
	Subject      *ocispec.Descriptor
	Annotations  map[string]string
}

// Children are what must be there for the document to be whole, a config before
// the layers. A subject is not among them: it may come later, or never.
func (m Manifest) Children() []ocispec.Descriptor {
	if m.Config == nil {
		return m.Manifests
	}
	return append([]ocispec.Descriptor{*m.Config}, m.Layers...)
}

// Parse reads doc as mediaType; "" takes the document's own word for it. The
// document's mediaType must agree with that of whoever lists it: one that reads
// both ways would mean different images to different tools (CVE-2021-41190).
func Parse(mediaType string, doc []byte) (Manifest, error) {
	var d struct {
		SchemaVersion int                  `json:"schemaVersion"`
		MediaType     string               `json:"mediaType"`
		ArtifactType  string               `json:"artifactType"`
		Config        *ocispec.Descriptor  `json:"config"`
		Layers        []ocispec.Descriptor `json:"layers"`
		Manifests     []ocispec.Descriptor `json:"manifests"`
		Subject       *ocispec.Descriptor  `json:"subject"`
		Annotations   map[string]string    `json:"annotations"`
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		return Manifest{}, fmt.Errorf("not a readable manifest: %w", err)
	}
	if d.MediaType == "" {
		d.MediaType = guess(d.Config != nil, d.Manifests != nil)
	} else if mediaType != "" && d.MediaType != mediaType {
		return Manifest{}, fmt.Errorf("it calls itself %q but is listed as %q; make the image again with a current tool", d.MediaType, mediaType)
	}
	if mediaType == "" {
		mediaType = d.MediaType
	}
	index := IsIndex(mediaType)
	switch {
	case !Is(mediaType):
		return Manifest{}, fmt.Errorf("%q is not a kind of manifest that slipway knows; make the image again with a current tool", mediaType)
	case d.SchemaVersion != 2:
		return Manifest{}, fmt.Errorf("manifest of schema version %d, not 2; make the image again with a current tool", d.SchemaVersion)
	case index && (d.Config != nil || d.Layers != nil), !index && d.Manifests != nil:
		return Manifest{}, errors.New("it holds both an index and a manifest; make the image again with a current tool")
	case !index && d.Config == nil:
		return Manifest{}, errors.New("the manifest names no config; it is not an image")
	}
	m := Manifest{
		MediaType: mediaType, ArtifactType: d.ArtifactType, Config: d.Config, Layers: d.Layers,
		Manifests: d.Manifests, Subject: d.Subject, Annotations: d.Annotations,
	}
	if m.ArtifactType == "" && m.Config != nil {
		m.ArtifactType = m.Config.MediaType
	}
	all := m.Children()
	if m.Subject != nil {
		all = append(all, *m.Subject)
	}
	for _, c := range all {
		if err := CheckDescriptor(c); err != nil {
			return Manifest{}, err
		}
	}
	return m, nil
}

// guess says what a document without a mediaType is: only OCI's may lack it.
func guess(config, manifests bool) string {
	switch {
	case config && !manifests:
		return ocispec.MediaTypeImageManifest
	case manifests && !config:
		return ocispec.MediaTypeImageIndex
	}
	return ""
}

// CheckDescriptor makes sure that a descriptor names content: its digest is
// safe to make a file name of.
func CheckDescriptor(d ocispec.Descriptor) error {
	if err := CheckDigest(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 {
		return fmt.Errorf("%s has the size %d", d.Digest, d.Size)
	}
	return nil
}

// CheckDigest takes sha256 and sha512 in lower-case hex, and nothing else.
func CheckDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%q is not a digest: %w; write sha256: and 64 hex digits", d, err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fmt.Errorf("%q: slipway knows sha256 and sha512 only", d)
	}
	return nil
}

// Foreign reports whether a layer is not expected in a registry: its
// distribution is restricted (image-spec, "Non-Distributable Layers").
func Foreign(d ocispec.Descriptor) bool {
	return strings.Contains(d.MediaType, ".nondistributable.") || d.MediaType == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
}

// Descriptor is how a list of referrers shows the document (distribution-spec, "Listing Referrers").
func (m Manifest) Descriptor(dgst digest.Digest, size int64) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: dgst, Size: size, ArtifactType: m.ArtifactType, Annotations: m.Annotations}
}
