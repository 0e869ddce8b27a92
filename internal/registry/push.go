package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Pushed says what a push or copy did.
type Pushed struct {
	Digest  digest.Digest
	Sent    int64 // bytes uploaded, retries included
	Blobs   int   // distinct blobs and manifests of the image
	Skipped int   // of them, those the registry had already or took from another of its repositories
}

// Push uploads desc and everything under it to repository, which has neither
// tag nor digest, under its digest. What the registry has is not sent. Answers
// that may pass (5xx, timeouts, cut connections) are tried again.
func Push(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, repository string, o Options) (Pushed, error) {
	c, err := newClient(o)
	if err != nil {
		return Pushed{}, err
	}
	defer c.close()
	repo, err := c.repository(repository)
	if err != nil {
		return Pushed{}, err
	}
	p, err := c.push(ctx, blobs, desc, repo, nil)
	if err != nil {
		return Pushed{}, fmt.Errorf("push %s@%s: %w", repository, desc.Digest, err)
	}
	return p, nil
}

// Copy puts the image source, REPOSITORY@sha256:…, into another repository
// under the same digest. Within one registry the layers do not travel.
func Copy(ctx context.Context, source, repository string, o Options) (Pushed, error) {
	c, err := newClient(o)
	if err != nil {
		return Pushed{}, err
	}
	defer c.close()
	from, err := c.reference(source)
	if err != nil {
		return Pushed{}, err
	}
	if _, ok := from.(name.Digest); !ok {
		return Pushed{}, fmt.Errorf("%s is a tag, not a digest, and may move; resolve it first and copy NAME@sha256:…", source)
	}
	repo, err := c.repository(repository)
	if err != nil {
		return Pushed{}, err
	}
	d, err := c.get(ctx, from)
	if err != nil {
		return Pushed{}, fmt.Errorf("copy %s: %w", source, c.explain(err, from.Context(), "pull"))
	}
	blobs, err := c.blobs(ctx, from.Context(), d)
	if err != nil {
		return Pushed{}, fmt.Errorf("copy %s: %w", source, err)
	}
	p, err := c.push(ctx, blobs, toOCI(d), repo, from)
	if err != nil {
		return Pushed{}, fmt.Errorf("copy %s to %s: %w", source, repository, err)
	}
	return p, nil
}

// blobs reads a repository as a store. root is at hand already.
func (c *client) blobs(ctx context.Context, from name.Repository, root *remote.Descriptor) (Blobs, error) {
	puller, err := remote.NewPuller(c.options(ctx)...)
	if err != nil {
		return nil, err
	}
	read := func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		ref := from.Digest(d.Digest.String())
		if d.Digest.String() == root.Digest.String() {
			return io.NopCloser(bytes.NewReader(root.Manifest)), nil
		}
		if isIndex(d.MediaType) || isManifest(d.MediaType) {
			m, err := puller.Get(ctx, ref)
			if err != nil {
				return nil, err
			}
			return io.NopCloser(bytes.NewReader(m.Manifest)), nil
		}
		l, err := puller.Layer(ctx, ref)
		if err != nil {
			return nil, err
		}
		return l.Compressed()
	}
	return func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		r, err := read(ctx, d)
		if err != nil {
			return nil, &sourceError{c.explain(err, from, "pull")}
		}
		return r, nil
	}, nil
}

// sourceError keeps an explained error of a copy's source from being explained
// once more as the target's.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// push does the work of Push and Copy. mount names where in a registry the
// layers may be already.
func (c *client) push(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, repo name.Repository, mount name.Reference) (Pushed, error) {
	root, all, err := c.load(ctx, blobs, desc, mount)
	if err != nil {
		return Pushed{}, err
	}
	var tag name.Tag
	if c.o.Tag != "" {
		if tag, err = name.NewTag(repo.Name()+":"+c.o.Tag, c.nameOptions()...); err != nil {
			return Pushed{}, fmt.Errorf("%q is not a tag (%w)", c.o.Tag, err)
		}
	}
	err = c.withProgress(func(more ...remote.Option) error {
		pusher, err := remote.NewPusher(append(c.options(ctx), more...)...)
		if err != nil {
			return err
		}
		if err := pusher.Push(ctx, repo.Digest(desc.Digest.String()), root); err != nil || c.o.Tag == "" {
			return err
		}
		return pusher.Put(ctx, tag, root)
	})
	if err != nil && ctx.Err() != nil {
		return Pushed{}, context.Cause(ctx)
	}
	var source *sourceError
	if errors.As(err, &source) {
		return Pushed{}, err
	}
	if err != nil {
		return Pushed{}, c.explain(err, repo, "push")
	}
	sent, took := c.sent.totals(all)
	return Pushed{Digest: desc.Digest, Sent: sent, Blobs: len(all), Skipped: len(all) - took}, nil
}

// withProgress runs f and passes on what it reports until it ends.
func (c *client) withProgress(f func(...remote.Option) error) error {
	if c.o.Progress == nil {
		return f()
	}
	updates, done := make(chan v1.Update, 64), make(chan struct{})
	go func() {
		defer close(done)
		for u := range updates {
			if u.Error == nil {
				c.o.Progress(u.Complete, u.Total)
			}
		}
	}()
	err := f(remote.WithProgress(updates))
	close(updates)
	<-done
	return err
}
