package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/identity"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/builder/dockerfile"
	"slipway/pipeline"
)

// Ingest brings an image into the store so that `FROM name` finds it without a
// network. open gives each of its blobs, which are checked against their
// digests; nothing is named unless all of them came. An image of that name is
// replaced.
func (b *Builder) Ingest(ctx context.Context, name string, target ocispec.Descriptor, open func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)) (pipeline.Image, error) {
	ref, err := dockerfile.Normalize(name)
	if err != nil {
		return pipeline.Image{}, err
	}
	store, err := b.newIntake(ctx)
	if err != nil {
		return pipeline.Image{}, err
	}
	if err := store.copy(ctx, target, open); err != nil {
		return pipeline.Image{}, errors.Join(fmt.Errorf("import %s: %w", name, err), store.drop(ctx))
	}
	if _, err := b.manifests(ctx, target); err != nil {
		return pipeline.Image{}, errors.Join(fmt.Errorf("import %s: %w", name, err), store.drop(ctx))
	}
	return pipeline.Image{Repository: ref.Name, Descriptor: target}, store.name(ctx, importedName(ref.Name), target)
}

// intake is the store as something from outside writes to it. What comes in is
// held by a lease until it has a name.
type intake struct {
	content.Store
	b     *Builder
	lease leases.Lease
}

func (b *Builder) newIntake(ctx context.Context) (*intake, error) {
	// The label makes the next Open drop it, if this process does not.
	temporary := leases.WithLabels(map[string]string{"buildkit/lease.temporary": time.Now().UTC().Format(time.RFC3339Nano)})
	l, err := b.engine.worker.LeaseManager().Create(ctx, leases.WithID("intake-"+identity.NewID()), leases.WithExpiration(24*time.Hour), temporary)
	if err != nil {
		return nil, err
	}
	return &intake{Store: b.engine.content, b: b, lease: l}, nil
}

// Writer implements content.Ingester. The lease is ours also when ctx came over
// gRPC from a remote builder and brought the remote's own.
func (i *intake) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := i.Store.Writer(leases.WithLease(ctx, i.lease.ID), opts...)
	if err != nil {
		return nil, err
	}
	return &leasedWriter{w, i.lease.ID}, nil
}

type leasedWriter struct {
	content.Writer
	lease string
}

// Commit implements content.Writer.
func (w *leasedWriter) Commit(ctx context.Context, size int64, d digest.Digest, opts ...content.Opt) error {
	return w.Writer.Commit(leases.WithLease(ctx, w.lease), size, d, opts...)
}

// copy writes everything target names.
func (i *intake) copy(ctx context.Context, target ocispec.Descriptor, open func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)) error {
	get := func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if err := i.copyBlob(ctx, d, open); err != nil {
			return nil, fmt.Errorf("%s: %w", d.Digest, err)
		}
		return images.Children(ctx, i, d)
	}
	return images.Walk(ctx, images.HandlerFunc(get), target)
}

func (i *intake) copyBlob(ctx context.Context, d ocispec.Descriptor, open func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)) (err error) {
	if err := d.Digest.Validate(); err != nil {
		return err
	}
	ref := i.lease.ID + "-" + d.Digest.Encoded()
	w, err := content.OpenWriter(ctx, i, content.WithRef(ref), content.WithDescriptor(d))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, w.Close())
		if err != nil {
			err = errors.Join(err, i.abort(ctx, ref))
		}
	}()
	r, err := open(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	// Copy checks size and digest at its commit.
	return content.Copy(ctx, w, r, d.Size, d.Digest)
}

func (i *intake) abort(ctx context.Context, ref string) error {
	err := i.Abort(context.WithoutCancel(ctx), ref)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// name makes target a named image, which keeps all its blobs, and gives the
// lease back.
func (i *intake) name(ctx context.Context, name string, target ocispec.Descriptor) error {
	children := images.SetChildrenMappedLabels(i.Store, images.ChildrenHandler(i.Store), nil)
	if err := images.Walk(ctx, children, target); err != nil {
		return errors.Join(err, i.drop(ctx))
	}
	img := images.Image{Name: name, Target: target}
	_, err := i.b.engine.images.Update(ctx, img, "target")
	if errdefs.IsNotFound(err) {
		_, err = i.b.engine.images.Create(ctx, img)
	}
	return errors.Join(err, i.drop(ctx))
}

// drop gives the lease back; what has no name by now will be collected.
func (i *intake) drop(ctx context.Context) error {
	return i.b.engine.worker.LeaseManager().Delete(context.WithoutCancel(ctx), i.lease)
}
