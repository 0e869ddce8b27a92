package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/manifest"
)

// containerdName is where BuildKit, containerd and Docker write the whole
// reference; org.opencontainers.image.ref.name often holds the tag alone.
const containerdName = "io.containerd.image.name"

// openLayout reads an OCI image layout (image-spec, image-layout.md) and makes
// sure that every blob of the chosen image is there with the right size.
func (a *Archive) openLayout(ctx context.Context, open files, o OpenOptions) error {
	if !o.Config.empty() {
		return errNotRootFS(Layout)
	}
	if err := checkLayoutVersion(open); err != nil {
		return err
	}
	b, err := readSmall(open, ocispec.ImageIndexFile)
	if err != nil {
		return err
	}
	var index ocispec.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return fmt.Errorf("%s is not readable: %w; make the layout again", ocispec.ImageIndexFile, err)
	}
	a.Kind, a.Blobs = Layout, layoutBlobs(open)
	if a.Target, a.Name, err = chooseManifest(index.Manifests, o); err != nil {
		return err
	}
	if err := manifest.CheckDescriptor(a.Target); err != nil {
		return fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	if !manifest.IsIndex(a.Target.MediaType) && !manifest.IsImage(a.Target.MediaType) {
		return fmt.Errorf("%s is a %q, not an image; make it again with a current tool", a.Target.Digest, a.Target.MediaType)
	}
	if err := a.choosePlatform(ctx, o.Platform); err != nil {
		return err
	}
	return walk(ctx, a.Blobs, a.Target, func(d ocispec.Descriptor, doc []byte) error {
		if doc != nil {
			return nil
		}
		return checkBlobFile(open, d)
	})
}

func errNotRootFS(k Kind) error {
	return fmt.Errorf("an %s has a configuration of its own, and changing it would change its digest; import it as it is and change it in a Dockerfile", k)
}

func checkLayoutVersion(open files) error {
	b, err := readSmall(open, ocispec.ImageLayoutFile)
	if err != nil {
		return err
	}
	var l ocispec.ImageLayout
	if err := json.Unmarshal(b, &l); err != nil {
		return fmt.Errorf("%s is not readable: %w; make the layout again", ocispec.ImageLayoutFile, err)
	}
	if l.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("an OCI layout of version %q; slipway reads %s", l.Version, ocispec.ImageLayoutVersion)
	}
	return nil
}

// layoutBlobs opens blobs of a layout. Descriptors are validated by then, so a
// digest cannot lead out of blobs/.
func layoutBlobs(open files) Blobs {
	return func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return openVerified(ctx, func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
			r, _, err := open(blobPath(d))
			return r, err
		}, d)
	}
}

func blobPath(d ocispec.Descriptor) string {
	return path.Join(ocispec.ImageBlobsDir, d.Digest.Algorithm().String(), d.Digest.Encoded())
}

func checkBlobFile(open files, d ocispec.Descriptor) error {
	r, size, err := open(blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob %s is missing; copy the image with all its layers, or choose a platform that is complete", d.Digest)
	}
	if err != nil {
		return err
	}
	if size != d.Size {
		err = fmt.Errorf("blob %s has %d bytes instead of %d; make the layout again", d.Digest, size, d.Size)
	}
	return errors.Join(err, r.Close())
}

// chooseManifest picks one entry of index.json: by name, or by platform where
// a tool listed the platforms of one image there directly.
func chooseManifest(all []ocispec.Descriptor, o OpenOptions) (ocispec.Descriptor, string, error) {
	c := make([]candidate, len(all))
	for i, d := range all {
		c[i].digest = d.Digest
		for _, key := range []string{containerdName, ocispec.AnnotationRefName} {
			if n := d.Annotations[key]; n != "" {
				c[i].names = append(c[i].names, n)
			}
		}
		if d.Platform != nil {
			c[i].detail = platforms.Format(*d.Platform)
		}
	}
	i, err := choose(c, o.Image)
	if err != nil && o.Platform != nil {
		if d, perr := forPlatform(all, *o.Platform); perr == nil {
			return d, "", nil
		}
	}
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	name := ""
	if len(c[i].names) > 0 {
		name = c[i].names[0]
	}
	return all[i], name, nil
}

// choosePlatform narrows an index to the manifest for p, and checks that a
// manifest is for p.
func (a *Archive) choosePlatform(ctx context.Context, p *ocispec.Platform) error {
	doc, err := document(ctx, a.Blobs, a.Target)
	if err != nil {
		return err
	}
	if manifest.IsIndex(a.Target.MediaType) {
		if p == nil {
			return nil
		}
		children, err := childrenOf(a.Target, doc)
		if err != nil {
			return err
		}
		a.Target, err = forPlatform(children, *p)
		return err
	}
	have, err := platformOf(ctx, a.Blobs, a.Target, doc)
	if err != nil {
		return err
	}
	if p != nil && !samePlatform(*p, have) {
		return fmt.Errorf("the image is for %s, not for %s; leave the platform out or get the other image", platforms.Format(have), platforms.Format(*p))
	}
	a.Target.Platform = &have
	return nil
}

// platformOf reads from its config what an image runs on.
func platformOf(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, doc []byte) (ocispec.Platform, error) {
	children, err := childrenOf(desc, doc)
	if err != nil {
		return ocispec.Platform{}, err
	}
	b, err := document(ctx, blobs, children[0])
	if err != nil {
		return ocispec.Platform{}, err
	}
	var c ocispec.Image
	if err := json.Unmarshal(b, &c); err != nil {
		return ocispec.Platform{}, fmt.Errorf("config %s is not readable: %w; make the image again", children[0].Digest, err)
	}
	if layers := len(children) - 1; len(c.RootFS.DiffIDs) != layers {
		return ocispec.Platform{}, fmt.Errorf("the config lists %d layers, the manifest %d; make the image again", len(c.RootFS.DiffIDs), layers)
	}
	if c.OS == "" || c.Architecture == "" {
		return ocispec.Platform{}, fmt.Errorf("config %s does not say which platform the image is for; make the image again", children[0].Digest)
	}
	return platforms.Normalize(c.Platform), nil
}
