package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"slipway/internal/registry/local"
	"slipway/internal/registry/manifest"
)

// jobs is how many blobs travel at a time: what docker and containerd do, about.
const jobs = 4

// Copied says what a push or copy did.
type Copied struct {
	Digest    digest.Digest
	Sent      int64 // bytes that were read to be sent, again ones included
	Blobs     int   // distinct blobs and manifests of the image and its referrers
	Skipped   int   // of them, those that were there or came from another repository without moving
	Saved     int64 // bytes of the skipped ones, as far as a manifest that was read says
	Referrers int   // manifests that refer to the image, or to one that does, there now
}

// CopyOptions says how much is copied.
type CopyOptions struct {
	NoReferrers bool                       // leave behind what refers to the image
	File        func(digest.Digest) string // Push into the local store: which file of this machine holds a blob, "" for none; see local.Source
	Progress    func(sent, total int64)    // bytes, those that were there already included; total grows while manifests are read; calls do not overlap; may be nil
}

// Copy puts the image d, of which the digest counts, of one repository into another, under the same digest
// and together with what refers to it: its proofs travel along. What the other
// repository has is not sent, and within one store or registry blobs do not move.
// A copy that was cut off may be made again; it sends what is missing.
func Copy(ctx context.Context, from Repository, d ocispec.Descriptor, to Repository, o CopyOptions) (Copied, error) {
	c := newCopying(from.Blob, to, o) // unchecked: whoever takes a blob checks it
	c.from = from
	all, err := c.run(ctx, d)
	if err != nil {
		return all, fmt.Errorf("copy %s@%s to %s: %w", from.Name(), d.Digest, to.Name(), err)
	}
	return all, nil
}

// Push puts an image of a store that is no repository into one.
func Push(ctx context.Context, blobs Blobs, d ocispec.Descriptor, to Repository, o CopyOptions) (Copied, error) {
	checked := func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return openVerified(ctx, blobs, d)
	}
	var all Copied
	var err error
	if l, ok := to.(localRepository); ok && o.File != nil {
		all, err = take(ctx, checked, d, l, o)
	} else {
		all, err = newCopying(checked, to, o).run(ctx, d)
	}
	if err != nil {
		return all, fmt.Errorf("push %s@%s: %w", to.Name(), d.Digest, err)
	}
	return all, nil
}

// take is a push between two stores of one machine.
func take(ctx context.Context, blobs Blobs, d ocispec.Descriptor, to localRepository, o CopyOptions) (Copied, error) {
	all := Copied{Digest: d.Digest}
	err := walk(ctx, blobs, d, func(d ocispec.Descriptor, _ []byte) error {
		all.Blobs++
		all.Skipped++
		all.Saved += d.Size
		return nil
	})
	if err != nil {
		return all, err
	}
	read := func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		in, err := blobs(ctx, d)
		if err != nil || manifest.Is(d.MediaType) {
			return in, err
		}
		all.Skipped-- // it is neither there nor in a file that can be linked
		all.Saved -= d.Size
		return &sending{in, func(n int) { all.Sent += int64(n) }}, nil
	}
	return all, to.PutImage(ctx, d, local.Source{Open: read, Path: o.File})
}

// copying is one Copy or Push.
type copying struct {
	blobs Blobs
	from  Repository // nil: a store without referrers
	to    Repository
	o     CopyOptions
	slots chan struct{} // one for each blob that travels

	mu          sync.Mutex
	parts       map[digest.Digest]*part
	all         Copied
	done, total int64
}

// part is one blob or manifest; whoever needs it too waits for whoever began it.
type part struct {
	once sync.Once
	err  error
}

func newCopying(blobs Blobs, to Repository, o CopyOptions) *copying {
	return &copying{blobs: blobs, to: to, o: o, slots: make(chan struct{}, jobs), parts: map[digest.Digest]*part{}}
}

func (c *copying) run(ctx context.Context, d ocispec.Descriptor) (Copied, error) {
	err := c.once(d, func() error { return c.manifest(ctx, d, nil, 0) })
	c.all.Digest = d.Digest
	return c.all, err
}

// claim finds the part of a digest, and reports whether it is new.
func (c *copying) claim(d ocispec.Descriptor) (p *part, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.parts[d.Digest]; p != nil {
		return p, false
	}
	p = &part{}
	c.parts[d.Digest] = p
	c.all.Blobs++
	c.total += d.Size
	return p, true
}

// once does f for the first of those who need d.
func (c *copying) once(d ocispec.Descriptor, f func() error) error {
	p, _ := c.claim(d)
	return p.do(f)
}

func (p *part) do(f func() error) error {
	p.once.Do(func() { p.err = f() })
	return p.err
}

// manifest copies d with all it names, then what refers to it. subject is what
// the source says that d refers to, nil where it says nothing.
func (c *copying) manifest(ctx context.Context, d ocispec.Descriptor, subject *ocispec.Descriptor, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d manifests that name or refer to each other; this is not an image slipway can carry", d.Digest, maxDepth)
	}
	if d.MediaType != "" && !manifest.Is(d.MediaType) {
		return fmt.Errorf("%s is a %q, not an image", d.Digest, d.MediaType)
	}
	var has, gone bool
	var doc []byte
	var referrers []ocispec.Descriptor
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		has, err = c.to.Has(gctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d.Digest})
		return err
	})
	g.Go(func() (err error) {
		doc, err = c.document(gctx, d)
		if gone = subject != nil && errors.Is(err, fs.ErrNotExist); gone {
			return nil
		}
		return err
	})
	g.Go(func() (err error) { referrers, err = c.referrers(gctx, d); return err })
	if err := g.Wait(); err != nil || gone {
		return err
	}
	m, err := manifest.Parse(d.MediaType, doc)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Digest, err)
	}
	if subject != nil && (m.Subject == nil || m.Subject.Digest != subject.Digest) {
		return fmt.Errorf("%s lists %s as a referrer of %s, which it is not; ask whoever runs it", c.from.Name(), d.Digest, subject.Digest)
	}
	full := m.Descriptor(d.Digest, int64(len(doc)))
	c.sized(full.Size - d.Size)
	if err := c.children(ctx, m, has, depth); err != nil {
		return err
	}
	if has {
		c.skipped(full)
	} else if err := c.putManifest(ctx, full, doc); err != nil {
		return err
	}
	return c.each(ctx, referrers, func(ctx context.Context, r ocispec.Descriptor) error {
		return c.referrer(ctx, r, full, depth+1)
	})
}

// document reads and checks a manifest.
func (c *copying) document(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if c.from == nil {
		return document(ctx, c.blobs, d)
	}
	_, doc, err := c.from.Manifest(ctx, d.Digest)
	return doc, err
}

// referrer copies one entry of a list of referrers. A list is only a claim, and a
// wrong one may go in circles: so nobody waits for an entry that someone else has
// begun, and one that is not there is left out.
func (c *copying) referrer(ctx context.Context, d, subject ocispec.Descriptor, depth int) error {
	p, first := c.claim(d)
	if !first {
		return nil
	}
	c.mu.Lock()
	c.all.Referrers++
	c.mu.Unlock()
	return p.do(func() error { return c.manifest(ctx, d, &subject, depth) })
}

func (c *copying) referrers(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if c.from == nil || c.o.NoReferrers {
		return nil, nil
	}
	return c.from.Referrers(ctx, d.Digest, "")
}

// children copies what a manifest names. A repository that has a manifest has
// its blobs; referrers of its manifests may be new all the same.
func (c *copying) children(ctx context.Context, m manifest.Manifest, has bool, depth int) error {
	return c.each(ctx, m.Children(), func(ctx context.Context, d ocispec.Descriptor) error {
		switch {
		case manifest.Is(d.MediaType) && m.Config == nil:
			return c.once(d, func() error { return c.manifest(ctx, d, nil, depth+1) })
		case manifest.Foreign(d):
			return nil
		}
		return c.once(d, func() error {
			if has {
				c.skipped(d)
				return nil
			}
			return c.blob(ctx, d)
		})
	})
}

// each does f for all at once.
func (c *copying) each(ctx context.Context, all []ocispec.Descriptor, f func(context.Context, ocispec.Descriptor) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4 * jobs)
	for _, d := range all {
		g.Go(func() error { return f(ctx, d) })
	}
	return g.Wait()
}

// blob copies one blob by the cheapest way there is.
func (c *copying) blob(ctx context.Context, d ocispec.Descriptor) error {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	there := false
	var err error
	if c.from != nil {
		there, err = c.to.Mount(ctx, d, c.from)
	}
	if !there && err == nil {
		there, err = c.to.Has(ctx, ocispec.Descriptor{Digest: d.Digest})
	}
	if err != nil {
		return err
	}
	if there {
		c.skipped(d)
		return nil
	}
	var before atomic.Int64 // of one attempt; its body may still be read when the next one begins
	opened := false
	err = c.to.PutBlob(ctx, d, func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		in, err := c.blobs(ctx, d)
		if err != nil {
			return nil, err
		}
		opened = true
		c.sent(0, -before.Swap(0)) // what an attempt before this one had sent is still to be done
		return &sending{in, func(n int) {
			before.Add(int64(n))
			c.sent(int64(n), int64(n))
		}}, nil
	})
	if err == nil && !opened { // it was elsewhere in the registry
		c.skipped(d)
	}
	return err
}

func (c *copying) putManifest(ctx context.Context, d ocispec.Descriptor, doc []byte) error {
	if err := c.to.PutManifest(ctx, d, doc); err != nil {
		return err
	}
	c.sent(d.Size, d.Size)
	return nil
}

func (c *copying) skipped(d ocispec.Descriptor) {
	c.mu.Lock()
	c.all.Skipped++
	c.all.Saved += d.Size
	c.mu.Unlock()
	c.sent(0, d.Size)
}

// sized corrects the total by what a descriptor did not say.
func (c *copying) sized(more int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total += more
}

// sent counts bytes, and passes on how far the copy is.
func (c *copying) sent(bytes, done int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all.Sent += bytes
	c.done += done
	if c.o.Progress != nil {
		c.o.Progress(c.done, c.total)
	}
}

// sending tells how many bytes are read.
type sending struct {
	io.ReadCloser
	read func(int)
}

func (s *sending) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.read(n)
	return n, err
}
