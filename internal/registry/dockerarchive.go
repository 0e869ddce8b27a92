package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerManifestFile lists the images of a `docker save` archive.
const dockerManifestFile = "manifest.json"

// dockerImage is one entry of manifest.json (moby, image/spec/v1.2.md).
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// openDocker reads a `docker save` archive. Config and layers keep their bytes
// and digests; only the manifest, which such an archive lacks, is written here.
// It reports false when manifest.json is some other file of that name.
func (a *Archive) openDocker(ctx context.Context, open files, o OpenOptions) (bool, error) {
	b, err := readSmall(open, dockerManifestFile)
	if err != nil {
		return true, err
	}
	var all []dockerImage
	if json.Unmarshal(b, &all) != nil || len(all) == 0 || all[0].Config == "" {
		return false, nil
	}
	if !o.Config.empty() {
		return true, errNotRootFS(DockerArchive)
	}
	return true, a.openDockerImage(ctx, open, all, o)
}

func (a *Archive) openDockerImage(ctx context.Context, open files, all []dockerImage, o OpenOptions) error {
	c := make([]candidate, len(all))
	for i, d := range all {
		stem, _, _ := strings.Cut(path.Base(d.Config), ".")
		c[i] = candidate{names: d.RepoTags, digest: digest.NewDigestFromEncoded(digest.SHA256, strings.TrimPrefix(stem, "sha256:"))}
	}
	i, err := choose(c, o.Image)
	if err != nil {
		return err
	}
	if len(all[i].RepoTags) > 0 {
		a.Name = all[i].RepoTags[0]
	}
	m, config, paths, err := dockerManifestOf(ctx, open, all[i], c[i].digest)
	if err != nil {
		return err
	}
	doc, err := json.Marshal(m)
	if err != nil {
		return err
	}
	a.Kind, a.Target = DockerArchive, descriptorOf(ocispec.MediaTypeImageManifest, doc)
	docs := map[digest.Digest][]byte{a.Target.Digest: doc, m.Config.Digest: config}
	a.Blobs = func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return openVerified(ctx, func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
			if b, ok := docs[d.Digest]; ok {
				return io.NopCloser(bytes.NewReader(b)), nil
			}
			name, ok := paths[d.Digest]
			if !ok {
				return nil, fs.ErrNotExist
			}
			r, _, err := open(name)
			return r, err
		}, d)
	}
	return a.choosePlatform(ctx, o.Platform)
}

// dockerManifestOf writes the manifest of one image of an archive, and says in
// which file each layer is.
func dockerManifestOf(ctx context.Context, open files, d dockerImage, claimed digest.Digest) (m ocispec.Manifest, config []byte, paths map[digest.Digest]string, err error) {
	if config, err = readSmall(open, d.Config); err != nil {
		return m, nil, nil, inArchive(d.Config, err)
	}
	m.SchemaVersion, m.MediaType = 2, ocispec.MediaTypeImageManifest
	m.Config = descriptorOf(ocispec.MediaTypeImageConfig, config)
	if claimed.Validate() == nil && claimed != m.Config.Digest {
		return m, nil, nil, fmt.Errorf("%s is damaged: its bytes have the digest %s; save the image again", d.Config, m.Config.Digest)
	}
	var c ocispec.Image
	if err := json.Unmarshal(config, &c); err != nil {
		return m, nil, nil, fmt.Errorf("%s is not readable: %w; save the image again", d.Config, err)
	}
	if len(c.RootFS.DiffIDs) != len(d.Layers) {
		return m, nil, nil, fmt.Errorf("%s lists %d layers, %s %d; save the image again", d.Config, len(c.RootFS.DiffIDs), dockerManifestFile, len(d.Layers))
	}
	paths = map[digest.Digest]string{}
	m.Layers = []ocispec.Descriptor{}
	for i, name := range d.Layers {
		l, err := dockerLayer(ctx, open, name, c.RootFS.DiffIDs[i])
		if err != nil {
			return m, nil, nil, inArchive(name, err)
		}
		m.Layers = append(m.Layers, l)
		paths[l.Digest] = name
	}
	return m, config, paths, nil
}

func inArchive(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing from the archive; save the image again", name)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// dockerLayer describes a layer as it stands in the archive. A plain tar's
// digest is its diffID, checked when it is read; a packed one must be read now.
func dockerLayer(ctx context.Context, open files, name string, diffID digest.Digest) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: diffID}
	if err := diffID.Validate(); err != nil {
		return d, fmt.Errorf("%q is not a digest: %w", diffID, err)
	}
	r, size, err := open(name)
	if err != nil {
		return d, err
	}
	defer r.Close()
	d.Size = size
	packed := digest.SHA256.Digester()
	whole := io.TeeReader(r, packed.Hash())
	z, packing, err := decompress(whole)
	if err != nil {
		return d, err
	}
	defer z.Close()
	switch packing {
	case plain:
		return d, nil
	case gzipped:
		d.MediaType = ocispec.MediaTypeImageLayerGzip
	case zstded:
		d.MediaType = ocispec.MediaTypeImageLayerZstd
	default:
		return d, fmt.Errorf("packed with %s, which no image may be; save the image again", packing)
	}
	plainSum := diffID.Algorithm().Digester()
	if _, err := io.Copy(plainSum.Hash(), &tapped{r: z, stopped: stopped(ctx), w: io.Discard}); err != nil {
		return d, err
	}
	if _, err := io.Copy(io.Discard, whole); err != nil {
		return d, err
	}
	if got := plainSum.Digest(); got != diffID {
		return d, fmt.Errorf("damaged: it unpacks to %s, the config says %s; save the image again", got, diffID)
	}
	d.Digest = packed.Digest()
	return d, nil
}
