// Package registry carries images over slipway's border: out of files into the
// builder's store (OpenFile), out of it into files (ExportLayout, ExportArchive)
// and into repositories (Push), and from repository to repository with what
// refers to them (Copy). A Repository is one of the local store (package local)
// or of a registry; the same tests hold for both.
//
// Bytes are never rewritten on the way: what leaves has the digest that was
// asked for, and whoever takes a blob checks it against its digest.
//
// It refuses to know the builder's store: it sees it only through Blobs. It
// resolves a tag only where a user gave one, reads no environment variables of
// its own and keeps nothing between calls but connections. Pulling base images
// is BuildKit's work, not this package's.
package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/manifest"
)

// Blobs opens one blob of a store by its descriptor; the caller closes it. Only
// Digest and Size need be right. A blob that is not there is an error that
// satisfies errors.Is(err, fs.ErrNotExist) where the store can tell.
type Blobs = func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)

// maxDocument bounds manifests, indexes and configs, which are read into
// memory: containerd and Docker Hub draw the line at 4 and 8 MiB.
const maxDocument = 8 << 20

// maxDepth bounds indexes within indexes; nothing real goes beyond two.
const maxDepth = 8

// walk calls visit for desc and everything under it, once per digest, a
// manifest before its config and layers. doc is the document of an index or
// manifest, nil for any other blob, which is not opened.
func walk(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, visit func(d ocispec.Descriptor, doc []byte) error) error {
	return walkSeen(ctx, blobs, desc, visit, map[digest.Digest]bool{}, 0)
}

func walkSeen(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, visit func(ocispec.Descriptor, []byte) error, seen map[digest.Digest]bool, depth int) error {
	if seen[desc.Digest] {
		return nil
	}
	seen[desc.Digest] = true
	if depth > maxDepth {
		return fmt.Errorf("%s: indexes nested more than %d deep; this is not an image slipway can carry", desc.Digest, maxDepth)
	}
	if !manifest.IsIndex(desc.MediaType) && !manifest.IsImage(desc.MediaType) {
		return visit(desc, nil)
	}
	doc, err := document(ctx, blobs, desc)
	if err != nil {
		return err
	}
	children, err := childrenOf(desc, doc)
	if err != nil {
		return err
	}
	if err := visit(desc, doc); err != nil {
		return err
	}
	for _, c := range children {
		if err := walkSeen(ctx, blobs, c, visit, seen, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// childrenOf parses the document of an index or manifest, and checks what it names.
func childrenOf(desc ocispec.Descriptor, doc []byte) ([]ocispec.Descriptor, error) {
	m, err := manifest.Parse(desc.MediaType, doc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", desc.Digest, err)
	}
	return m.Children(), nil
}

// document reads a whole small blob and checks it.
func document(ctx context.Context, blobs Blobs, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > maxDocument {
		return nil, fmt.Errorf("%s %s claims %d bytes; slipway reads such documents up to %d", d.MediaType, d.Digest, d.Size, maxDocument)
	}
	r, err := openVerified(ctx, blobs, d)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(int(min(d.Size, 64<<10)))
	_, err = b.ReadFrom(r)
	return b.Bytes(), errors.Join(err, r.Close())
}

// openVerified opens a blob whose reader fails where the bytes are not d's.
func openVerified(ctx context.Context, blobs Blobs, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := manifest.CheckDescriptor(d); err != nil {
		return nil, err
	}
	r, err := blobs(ctx, d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s is missing: %w; fetch or build the image again", d.Digest, err)
	}
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return &verified{r: r, stopped: stopped(ctx), want: d, sum: d.Digest.Algorithm().Hash(), left: d.Size}, nil
}

// stopped gives ctx to a reader, which has no argument for it.
func stopped(ctx context.Context) func() error {
	return func() error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
}

// verified passes a blob's bytes on and turns the end into an error when size
// or digest are wrong, so that no consumer can mistake a damaged blob for a
// whole one.
type verified struct {
	r       io.ReadCloser
	stopped func() error
	want    ocispec.Descriptor
	sum     hash.Hash
	left    int64
}

func (v *verified) Read(p []byte) (int, error) {
	if err := v.stopped(); err != nil {
		return 0, err
	}
	n, err := v.r.Read(p)
	v.left -= int64(n)
	_, _ = v.sum.Write(p[:n]) // a hash never fails
	if v.left < 0 {
		return 0, fmt.Errorf("blob %s is damaged: longer than its %d bytes; fetch or build the image again", v.want.Digest, v.want.Size)
	}
	ended := errors.Is(err, io.EOF)
	if ended && v.left > 0 {
		return n, fmt.Errorf("blob %s is damaged: %d of its %d bytes are missing; fetch or build the image again", v.want.Digest, v.left, v.want.Size)
	}
	// As soon as the last byte is read, and instead of it: some consumers count
	// bytes, and never look at what comes with or after the last.
	if v.left == 0 && (n > 0 || ended) {
		if got := digest.NewDigestFromBytes(v.want.Digest.Algorithm(), v.sum.Sum(nil)); got != v.want.Digest {
			return 0, fmt.Errorf("blob %s is damaged: its bytes have the digest %s; fetch or build the image again", v.want.Digest, got)
		}
	}
	return n, err
}

func (v *verified) Close() error { return v.r.Close() }
