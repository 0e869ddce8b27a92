package builder

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/util/overlay"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The identity of an image is its digest, so these never change: layers built
// from the same files are the same bytes on every machine and every day.
const (
	epochArg  = "SOURCE_DATE_EPOCH"
	gzipLevel = gzip.BestSpeed
)

// epoch is the latest time a file of a built layer, and the image itself, can carry.
var epoch = time.Unix(946684800, 0).UTC() // 2000-01-01T00:00:00Z

// differ writes the layer of a step: what its overlay's upper directory holds,
// with times clamped to the epoch. BuildKit can clamp only at export, by
// rewriting every layer of every build again; here it costs nothing.
//
// The files in the snapshot keep their real times, because build tools compare
// them between the steps of one Dockerfile.
type differ struct {
	store   content.Store
	walking diff.Comparer // for mounts that are no overlay
	empty   string        // an empty directory
}

func newDiffer(store content.Store, empty string) *differ {
	return &differ{store: store, walking: walking.NewWalkingDiff(store), empty: empty}
}

// Compare implements diff.Comparer.
func (d *differ) Compare(ctx context.Context, lower, upper []mount.Mount, opts ...diff.Opt) (ocispec.Descriptor, error) {
	var c diff.Config
	for _, o := range opts {
		if err := o(&c); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if c.MediaType != ocispec.MediaTypeImageLayerGzip {
		return ocispec.Descriptor{}, fmt.Errorf("layer of type %q: slipway writes gzip only: %w", c.MediaType, errdefs.ErrNotImplemented)
	}
	dir, err := overlay.GetUpperdir(lower, upper)
	if err != nil {
		clamp := func(c *diff.Config) error { c.SourceDateEpoch = &epoch; return nil }
		return d.walking.Compare(ctx, lower, upper, append(opts, diff.WithCompressor(gzipWriter), clamp)...)
	}
	w, err := content.OpenWriter(ctx, d.store, content.WithRef(c.Reference), content.WithDescriptor(ocispec.Descriptor{MediaType: c.MediaType}))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	diffID, err := d.writeLayer(ctx, w, dir, lower)
	if err != nil {
		return ocispec.Descriptor{}, errors.Join(err, w.Close())
	}
	return d.commit(ctx, w, c.MediaType, diffID)
}

// commit ends the write; w is closed whatever happens.
func (d *differ) commit(ctx context.Context, w content.Writer, mediaType string, diffID digest.Digest) (ocispec.Descriptor, error) {
	dgst := w.Digest()
	label := map[string]string{labels.LabelUncompressed: diffID.String()}
	if err := w.Commit(ctx, 0, dgst, content.WithLabels(label)); err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispec.Descriptor{}, err
	}
	info, err := d.store.Info(ctx, dgst)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if info.Labels[labels.LabelUncompressed] == "" { // it was there before, without the label
		info.Labels = label
		if _, err := d.store.Update(ctx, info, "labels."+labels.LabelUncompressed); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: info.Size}, nil
}

func gzipWriter(w io.Writer, _ string) (io.WriteCloser, error) {
	return gzip.NewWriterLevel(w, gzipLevel)
}

// writeLayer writes the gzipped tar of upper over lower and gives the digest of
// the tar itself.
func (d *differ) writeLayer(ctx context.Context, w content.Writer, upper string, lower []mount.Mount) (digest.Digest, error) {
	if err := w.Truncate(0); err != nil {
		return "", err
	}
	buf := bufio.NewWriterSize(w, 128<<10)
	zip, err := gzip.NewWriterLevel(buf, gzipLevel)
	if err != nil {
		return "", err
	}
	sum := digest.Canonical.Digester()
	if err := d.writeTar(ctx, io.MultiWriter(zip, sum.Hash()), upper, lower); err != nil {
		return "", fmt.Errorf("write a layer: %w", err)
	}
	if err := zip.Close(); err != nil {
		return "", err
	}
	return sum.Digest(), buf.Flush()
}

func (d *differ) writeTar(ctx context.Context, w io.Writer, upper string, lower []mount.Mount) error {
	write := func(base string) error {
		return d.withoutWhiteouts(ctx, upper, func(view string) error {
			cw := archive.NewChangeWriter(w, view, archive.WithModTimeUpperBound(epoch))
			links := hardLinks{write: cw.HandleChange, written: map[string]bool{}}
			if err := overlay.Changes(ctx, links.change, upper, view, base); err != nil {
				return err
			}
			if err := links.complete(upper); err != nil {
				return err
			}
			return cw.Close()
		})
	}
	return mount.WithTempMount(ctx, lower, write)
}

// withoutWhiteouts shows upper as a step sees it: an overlay of it alone, in
// which deleted names are absent.
func (d *differ) withoutWhiteouts(ctx context.Context, upper string, f func(view string) error) error {
	view := mount.Mount{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + upper + ":" + d.empty, "index=off"}}
	return mount.WithTempMount(ctx, []mount.Mount{view}, f)
}
