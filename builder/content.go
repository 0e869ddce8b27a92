package builder

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/pipeline"
)

// maxDocument bounds a manifest, index or configuration, in bytes.
const maxDocument = 8 << 20

// manifest is one platform of an image, read and checked.
type manifest struct {
	desc     ocispec.Descriptor
	platform string
	manifest ocispec.Manifest
	config   ocispec.Image
	docker   dockerspec.DockerOCIImageConfigExt // Docker's additions to it
}

// manifests reads what target names: one manifest, or all those of an index,
// ordered by platform. Attestations in an index are no platform.
func (b *Builder) manifests(ctx context.Context, target ocispec.Descriptor) ([]manifest, error) {
	all := []ocispec.Descriptor{target}
	if images.IsIndexType(target.MediaType) {
		var index ocispec.Index
		if err := b.readJSON(ctx, target, &index); err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool {
			return d.Annotations["vnd.docker.reference.type"] != "" || !images.IsManifestType(d.MediaType)
		})
	}
	var out []manifest
	for _, d := range all {
		m := manifest{desc: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}}
		if err := b.readJSON(ctx, d, &m.manifest); err != nil {
			return nil, err
		}
		var docker dockerspec.DockerOCIImage
		if err := b.readJSON(ctx, m.manifest.Config, &docker); err != nil {
			return nil, err
		}
		m.config, m.docker = docker.Image, docker.Config.DockerOCIImageConfigExt
		m.config.Config = docker.Config.ImageConfig
		if have, want := len(m.config.RootFS.DiffIDs), len(m.manifest.Layers); have != want {
			return nil, fmt.Errorf("image %s: %d layers, but %d in its configuration", d.Digest, want, have)
		}
		m.platform = platforms.Format(platforms.Normalize(m.config.Platform))
		out = append(out, m)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("index %s names no image", target.Digest)
	}
	slices.SortStableFunc(out, func(x, y manifest) int { return strings.Compare(x.platform, y.platform) })
	return out, nil
}

// pick is the manifest for a platform; empty is this machine's.
func pick(all []manifest, platform string) (manifest, error) {
	want := platforms.DefaultSpec()
	if platform != "" {
		var err error
		if want, err = platforms.Parse(platform); err != nil {
			return manifest{}, fmt.Errorf("platform %q: %w; write it like linux/amd64", platform, err)
		}
	}
	only := platforms.Only(want)
	var have []string
	for _, m := range all {
		if only.Match(m.config.Platform) {
			return m, nil
		}
		have = append(have, m.platform)
	}
	return manifest{}, &PlatformError{Want: platforms.Format(platforms.Normalize(want)), Have: have}
}

// PlatformError says that an image was not built for a platform.
type PlatformError struct {
	Want string   // "linux/amd64"
	Have []string // what it was built for
}

func (e *PlatformError) Error() string {
	return fmt.Sprintf("the image has no %s, only %s; build it for %s too", e.Want, strings.Join(e.Have, ", "), e.Want)
}

// readJSON reads a document and checks that it is the one its digest names.
func (b *Builder) readJSON(ctx context.Context, d ocispec.Descriptor, into any) error {
	if d.Size > maxDocument {
		return fmt.Errorf("%s %s has %d bytes, too large for a document", d.MediaType, d.Digest, d.Size)
	}
	data, err := content.ReadBlob(ctx, b.engine.content, d)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	if digest.FromBytes(data) != d.Digest {
		return fmt.Errorf("the store's %s is damaged: remove the image and build or import it again", d.Digest)
	}
	return json.Unmarshal(data, into)
}

// BlobFile is the file of a blob, which is never written to once it has that
// name; nobody has looked whether it is there.
func (b *Builder) BlobFile(d digest.Digest) string {
	if d.Algorithm() != digest.SHA256 {
		return ""
	}
	return filepath.Join(blobDir(workerDir(b.o.Root)), d.Encoded())
}

// Blob opens one blob of the store by its digest; the caller closes it. A blob
// that is not there is errdefs.ErrNotFound of containerd.
func (b *Builder) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	r, err := b.engine.content.ReaderAt(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{content.NewReader(r), r}, nil
}

// Known finds an image that this builder has made by its digest; an fs.ErrNotExist
// says that it is collected.
func (b *Builder) Known(ctx context.Context, name string, d digest.Digest) (pipeline.Image, error) {
	info, err := b.engine.content.Info(ctx, d)
	if errdefs.IsNotFound(err) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return pipeline.Image{}, fmt.Errorf("find %s@%s: %w", name, d, err)
	}
	desc := ocispec.Descriptor{Digest: d, Size: info.Size}
	var kind struct {
		MediaType string `json:"mediaType"`
	}
	if err := b.readJSON(ctx, desc, &kind); err != nil {
		return pipeline.Image{}, err
	}
	desc.MediaType = kind.MediaType
	return pipeline.Image{Repository: name, Descriptor: desc}, nil
}
