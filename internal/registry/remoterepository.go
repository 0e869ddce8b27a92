package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/manifest"
)

// remoteRepository is a repository of a registry.
type remoteRepository struct {
	client *client
	name   string
	repo   name.Repository

	mu       sync.Mutex
	sessions map[string]*http.Client // by scope
}

// Name implements Repository.
func (r *remoteRepository) Name() string { return r.name }

const octets = "application/octet-stream"

// accept are the manifests that slipway reads.
var accept = strings.Join([]string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, manifest.TypeDockerManifest, manifest.TypeDockerList}, ", ")

// fail explains an error of the wire.
func (r *remoteRepository) fail(ctx context.Context, verb, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%s %s: %w", verb, what, r.client.explain(err, r.repo, verb))
}

// Resolve implements Repository. It fetches the manifest rather than only asking
// for it: not every registry answers HEAD with a digest, and this way it is checked.
func (r *remoteRepository) Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	d, _, err := r.manifest(ctx, ref)
	return d, err
}

// Manifest implements Repository.
func (r *remoteRepository) Manifest(ctx context.Context, d digest.Digest) (ocispec.Descriptor, []byte, error) {
	if err := manifest.CheckDigest(d); err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return r.manifest(ctx, d.String())
}

func (r *remoteRepository) manifest(ctx context.Context, ref string) (d ocispec.Descriptor, doc []byte, err error) {
	what := r.name + ":" + ref
	if strings.Contains(ref, ":") {
		what = r.name + "@" + ref
	}
	var kind string
	err = r.client.again(ctx, func() error {
		resp, err := r.send(ctx, request{method: http.MethodGet, path: "manifests/" + ref, header: http.Header{"Accept": {accept}}, want: []int{http.StatusOK}})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		kind, _, _ = strings.Cut(resp.Header.Get("Content-Type"), ";")
		doc, err = io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
		return err
	})
	if err != nil {
		return d, nil, r.fail(ctx, "pull", what, err)
	}
	if len(doc) > maxDocument {
		return d, nil, fmt.Errorf("pull %s: more than %d bytes are too many for a manifest", what, maxDocument)
	}
	dgst := digest.FromBytes(doc)
	if want := digest.Digest(ref); strings.Contains(ref, ":") {
		if dgst = want.Algorithm().FromBytes(doc); dgst != want {
			return d, nil, fmt.Errorf("pull %s: the registry sent something else, %s; ask whoever runs it", what, dgst)
		}
	}
	m, err := manifest.Parse("", doc)
	if err != nil {
		return d, nil, fmt.Errorf("pull %s: it is a %q: %w", what, kind, err)
	}
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: dgst, Size: int64(len(doc)), ArtifactType: m.ArtifactType, Annotations: m.Annotations}, doc, nil
}

// where is the path of a blob or manifest.
func where(d ocispec.Descriptor) string {
	if manifest.Is(d.MediaType) {
		return "manifests/" + d.Digest.String()
	}
	return "blobs/" + d.Digest.String()
}

// Has implements Repository.
func (r *remoteRepository) Has(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	if err := manifest.CheckDigest(d.Digest); err != nil {
		return false, err
	}
	resp, err := r.do(ctx, request{method: http.MethodHead, path: where(d), header: http.Header{"Accept": {accept}}, want: []int{http.StatusOK}})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, r.fail(ctx, "push", d.Digest.String(), err)
	}
	return true, resp.Body.Close()
}

// Blob implements Repository. A cut connection is taken up where it was cut.
func (r *remoteRepository) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := manifest.CheckDescriptor(d); err != nil {
		return nil, err
	}
	if manifest.Is(d.MediaType) {
		_, doc, err := r.Manifest(ctx, d.Digest)
		return io.NopCloser(bytes.NewReader(doc)), err
	}
	b := &resuming{repo: r, desc: d, reopen: func(at int64) (io.ReadCloser, error) { return r.blobFrom(ctx, d, at) }}
	err := r.client.again(ctx, b.open)
	if err != nil {
		return nil, r.fail(ctx, "pull", d.Digest.String(), err)
	}
	return b, nil
}

// blobFrom opens a blob at an offset.
func (r *remoteRepository) blobFrom(ctx context.Context, d ocispec.Descriptor, at int64) (io.ReadCloser, error) {
	q := request{method: http.MethodGet, path: where(d), want: []int{http.StatusOK}}
	if at > 0 {
		q.header, q.want = http.Header{"Range": {fmt.Sprintf("bytes=%d-", at)}}, append(q.want, http.StatusPartialContent)
	}
	resp, err := r.send(ctx, q)
	if err != nil {
		return nil, err
	}
	if at > 0 && resp.StatusCode == http.StatusOK { // it knows no ranges
		if _, err := io.CopyN(io.Discard, resp.Body, at); err != nil {
			return nil, errors.Join(err, resp.Body.Close())
		}
	}
	return resp.Body, nil
}

// resuming reads a blob over as many connections as it takes.
type resuming struct {
	repo   *remoteRepository
	desc   ocispec.Descriptor
	reopen func(at int64) (io.ReadCloser, error)
	body   io.ReadCloser
	at     int64
	cuts   int
}

func (b *resuming) open() (err error) {
	b.body, err = b.reopen(b.at)
	return err
}

func (b *resuming) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.at += int64(n)
	if errors.Is(err, io.EOF) && b.at < b.desc.Size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil || errors.Is(err, io.EOF) || b.cuts == attempts || !temporary(err) {
		return n, err
	}
	b.cuts++
	_ = b.body.Close()
	if again := b.open(); again != nil {
		b.body = io.NopCloser(strings.NewReader(""))
		return n, err // what cut it says more
	}
	return n, nil
}

func (b *resuming) Close() error { return b.body.Close() }

// PutBlob implements Repository: one request to begin, one with all bytes
// (distribution-spec, "POST then PUT"). Both are made again when one was cut.
func (r *remoteRepository) PutBlob(ctx context.Context, d ocispec.Descriptor, from Blobs) error {
	if err := manifest.CheckDescriptor(d); err != nil {
		return err
	}
	var source error // an error of from must not look like one of the registry
	err := r.client.again(ctx, func() error {
		at, err := r.beginUpload(ctx, d.Digest)
		if err != nil || at == nil {
			return err
		}
		in, err := from(ctx, d)
		if err != nil {
			source = err
			return err
		}
		q := at.Query()
		q.Set("digest", d.Digest.String())
		at.RawQuery = q.Encode()
		resp, err := r.send(ctx, request{
			method: http.MethodPut, at: at, scope: transport.PushScope, body: in, size: d.Size,
			header: http.Header{"Content-Type": {octets}}, want: []int{http.StatusCreated},
		})
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	if source != nil && errors.Is(err, source) {
		return source
	}
	if err != nil {
		return r.fail(ctx, "push", d.Digest.String(), err)
	}
	return nil
}

// beginUpload says where to send a blob; nil where the registry turns out to have
// it, in whichever of its repositories (distribution-spec, "Mounting a blob": the
// from parameter is optional). A registry that does not know this begins an
// upload as if it had not been asked, or refuses, and is then asked plainly.
func (r *remoteRepository) beginUpload(ctx context.Context, d digest.Digest) (*url.URL, error) {
	q := request{
		method: http.MethodPost, path: "blobs/uploads/", query: url.Values{"mount": {d.String()}}, scope: transport.PushScope,
		want: []int{http.StatusAccepted, http.StatusCreated},
	}
	resp, err := r.send(ctx, q)
	var answer *transport.Error
	if errors.As(err, &answer) && (answer.StatusCode == http.StatusBadRequest || answer.StatusCode == http.StatusMethodNotAllowed) {
		q.query = nil
		resp, err = r.send(ctx, q)
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusCreated {
		return nil, resp.Body.Close()
	}
	return location(resp)
}

// location is where an upload goes on, and closes the answer. It may be
// relative; it is not followed to a less safe place.
func location(resp *http.Response) (*url.URL, error) {
	at, err := resp.Location()
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("the registry began an upload without saying where: %w", err)
	}
	if resp.Request.URL.Scheme == "https" && at.Scheme != "https" {
		at.Scheme = "https" // a proxy that ends TLS and does not say so to the registry behind it
	}
	return at, nil
}

// Mount implements Repository, within one registry.
func (r *remoteRepository) Mount(ctx context.Context, d ocispec.Descriptor, from Repository) (bool, error) {
	other, ok := from.(*remoteRepository)
	if !ok || other.client != r.client || manifest.Is(d.MediaType) {
		return false, nil
	}
	resp, err := r.do(ctx, request{
		method: http.MethodPost, path: "blobs/uploads/", scope: transport.PushScope,
		query: url.Values{"mount": {d.Digest.String()}, "from": {other.repo.RepositoryStr()}},
		want:  []int{http.StatusCreated, http.StatusAccepted},
	})
	if err != nil {
		return false, r.fail(ctx, "push", d.Digest.String(), err)
	}
	if resp.StatusCode == http.StatusCreated {
		return true, resp.Body.Close()
	}
	// It began an upload instead, which nobody will end.
	if at, err := location(resp); err == nil {
		if resp, err := r.send(ctx, request{method: http.MethodDelete, at: at, scope: transport.PushScope, want: []int{http.StatusNoContent}}); err == nil {
			_ = resp.Body.Close()
		}
	}
	return false, nil
}

// PutManifest implements Repository.
func (r *remoteRepository) PutManifest(ctx context.Context, d ocispec.Descriptor, doc []byte) error {
	m, err := manifest.Parse(d.MediaType, doc)
	if err != nil {
		return fmt.Errorf("push %s: %w", d.Digest, err)
	}
	d.MediaType = m.MediaType
	listed, err := r.putManifest(ctx, d.Digest.String(), d, doc)
	if err != nil {
		return err
	}
	if m.Subject != nil && !listed {
		return r.listReferrer(ctx, m, ocispec.Descriptor{MediaType: m.MediaType, Digest: d.Digest, Size: int64(len(doc)), ArtifactType: m.ArtifactType, Annotations: m.Annotations})
	}
	return nil
}

// putManifest puts doc under a tag or its digest, and reports whether the
// registry says that it lists it among its subject's referrers.
func (r *remoteRepository) putManifest(ctx context.Context, ref string, d ocispec.Descriptor, doc []byte) (listed bool, err error) {
	err = r.client.again(ctx, func() error {
		resp, err := r.send(ctx, request{
			method: http.MethodPut, path: "manifests/" + ref, scope: transport.PushScope,
			body: io.NopCloser(bytes.NewReader(doc)), size: int64(len(doc)),
			header: http.Header{"Content-Type": {d.MediaType}}, want: []int{http.StatusCreated},
		})
		if err != nil {
			return err
		}
		listed = resp.Header.Get("OCI-Subject") != ""
		return resp.Body.Close()
	})
	if err != nil {
		return false, r.fail(ctx, "push", ref, err)
	}
	return listed, nil
}

// Tag implements Repository.
func (r *remoteRepository) Tag(ctx context.Context, tag string, d digest.Digest) error {
	desc, doc, err := r.Manifest(ctx, d)
	if err != nil {
		return err
	}
	_, err = r.putManifest(ctx, tag, desc, doc)
	return err
}

// maxPages bounds lists that a registry gives in parts.
const maxPages = 10_000

// pages reads a list until the registry says that it ends.
func (r *remoteRepository) pages(ctx context.Context, path string, query url.Values, read func(*http.Response) error) error {
	q := request{method: http.MethodGet, path: path, query: query, want: []int{http.StatusOK}}
	for range maxPages {
		var next *url.URL
		err := r.client.again(ctx, func() error {
			resp, err := r.send(ctx, q)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			next = nextPage(resp)
			return read(resp)
		})
		if err != nil || next == nil {
			return err
		}
		q.at = next
	}
	return fmt.Errorf("%s: a list of more than %d parts", r.name, maxPages)
}

// nextPage reads the Link header (RFC 8288) of a list; only the registry itself is asked for more.
func nextPage(resp *http.Response) *url.URL {
	for _, h := range resp.Header.Values("Link") {
		target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(h), "<"), ">")
		if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
			continue
		}
		u, err := resp.Request.URL.Parse(target)
		if err == nil && u.Host == resp.Request.URL.Host {
			u.Scheme = resp.Request.URL.Scheme
			return u
		}
	}
	return nil
}

// Tags implements Repository.
func (r *remoteRepository) Tags(ctx context.Context) ([]string, error) {
	var all []string
	err := r.pages(ctx, "tags/list", nil, func(resp *http.Response) error {
		var page struct {
			Tags []string `json:"tags"`
		}
		err := readJSON(resp.Body, &page)
		all = append(all, page.Tags...)
		return err
	})
	if err != nil {
		return nil, r.fail(ctx, "pull", r.name, err)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
