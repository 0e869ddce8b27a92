package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/local"
)

// Repository is one repository: of the local store, or of a registry. What is
// not there is an error that satisfies errors.Is(err, fs.ErrNotExist).
type Repository interface {
	// Name is how a user writes it: "team/app", or "registry.example/team/app".
	Name() string
	// Resolve says what a tag or a digest names now. A tag may name something
	// else a moment later: resolve only what a user gave, once, and keep the digest.
	Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error)
	// Manifest reads a manifest or index; its bytes are checked.
	Manifest(ctx context.Context, d digest.Digest) (ocispec.Descriptor, []byte, error)
	// PutManifest stores doc, whose media type and digest d says. What it names
	// must be there by then, its subject need not be. It is listed among the
	// subject's referrers when this returns.
	PutManifest(ctx context.Context, d ocispec.Descriptor, doc []byte) error
	// Blob opens a blob, or a manifest where d's media type says so. The bytes
	// need checking: see Read.
	Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
	// Has reports whether the repository holds a blob or manifest.
	Has(ctx context.Context, d ocispec.Descriptor) (bool, error)
	// PutBlob stores the blob that from opens, more than once where it is tried
	// again. Bytes with another digest are refused.
	PutBlob(ctx context.Context, d ocispec.Descriptor, from Blobs) error
	// Mount makes a blob of another repository one of this without moving it,
	// and reports whether it could.
	Mount(ctx context.Context, d ocispec.Descriptor, from Repository) (bool, error)
	// Referrers lists what has d as its subject: of one artifact type, or all
	// where it is "". None is no error.
	Referrers(ctx context.Context, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error)
	// Tag makes tag name d, which is there, from now on.
	Tag(ctx context.Context, tag string, d digest.Digest) error
	// Tags lists all tags, sorted.
	Tags(ctx context.Context) ([]string, error)
}

// Registries opens repositories by name, and keeps connections between calls.
type Registries struct {
	// Local is where names without a host lead; nil: there is no local store.
	Local *local.Store
	// Options says how to talk to a host, which may have a port; nil: the zero Options.
	Options func(host string) Options

	mu      sync.Mutex
	clients map[string]*client
}

// Repository opens a repository by its name, without tag or digest. Nothing is
// asked of a registry yet.
func (r *Registries) Repository(name string) (Repository, error) {
	ref, err := ParseReference(name)
	if err != nil {
		return nil, err
	}
	if ref.Tag != "" || ref.Digest != "" {
		return nil, fmt.Errorf("%q is not a repository; write it without tag or digest", name)
	}
	host := ref.Host()
	if host == "" {
		return r.local(name)
	}
	c, err := r.client(host)
	if err != nil {
		return nil, err
	}
	return c.open(name)
}

func (r *Registries) local(name string) (Repository, error) {
	if r.Local == nil {
		return nil, fmt.Errorf("%q has no host; write HOST/NAME for a repository of a registry", name)
	}
	repo, err := r.Local.Repository(name)
	if err != nil {
		return nil, err
	}
	return localRepository{repo}, nil
}

func (r *Registries) client(host string) (*client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.clients[host]; c != nil {
		return c, nil
	}
	var o Options
	if r.Options != nil {
		o = r.Options(host)
	}
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	if r.clients == nil {
		r.clients = map[string]*client{}
	}
	r.clients[host] = c
	return c, nil
}

// Close ends idle connections; the local store belongs to whoever gave it.
func (r *Registries) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.clients {
		c.close()
	}
}

// Open gives the repository and descriptor of a reference. A tag is resolved
// here, and never again.
func (r *Registries) Open(ctx context.Context, reference string) (Repository, ocispec.Descriptor, error) {
	ref, err := ParseReference(reference)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	what := ref.Tag
	if ref.Digest != "" {
		what = ref.Digest.String()
	}
	if what == "" {
		return nil, ocispec.Descriptor{}, fmt.Errorf("%q names no image; write NAME@sha256:… or NAME:TAG", reference)
	}
	repo, err := r.Repository(ref.Repository)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	d, err := repo.Resolve(ctx, what)
	return repo, d, err
}

// localRepository is a repository of the local store.
type localRepository struct{ *local.Repository }

func (l localRepository) Mount(ctx context.Context, d ocispec.Descriptor, from Repository) (bool, error) {
	other, ok := from.(localRepository)
	if !ok {
		return false, nil
	}
	return l.Repository.Mount(ctx, d.Digest, other.Repository)
}

// Read reads a small blob or manifest whole, and checks it.
func Read(ctx context.Context, r Repository, d ocispec.Descriptor) ([]byte, error) {
	b, err := document(ctx, r.Blob, d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Name(), err)
	}
	return b, nil
}

// errNoSubject is a defect of the caller.
var errNoSubject = errors.New("an artifact to attach needs a type, a media type and a subject with digest and size")
