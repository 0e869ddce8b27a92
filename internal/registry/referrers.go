package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/manifest"
)

// Referrers implements Repository.
func (r *remoteRepository) Referrers(ctx context.Context, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	if err := manifest.CheckDigest(d); err != nil {
		return nil, err
	}
	var query url.Values
	if artifactType != "" {
		query = url.Values{"artifactType": {artifactType}}
	}
	var all []ocispec.Descriptor
	err := r.pages(ctx, "referrers/"+d.String(), query, func(resp *http.Response) error {
		var page ocispec.Index
		err := readJSON(resp.Body, &page)
		all = append(all, page.Manifests...)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) { // no referrers API: it would answer with an empty list
		if all, err = r.taggedReferrers(ctx, d); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, r.fail(ctx, "pull", "referrers of "+d.String(), err)
	}
	return chosen(all, artifactType)
}

// chosen filters here what a registry may have left unfiltered, once per digest.
func chosen(all []ocispec.Descriptor, artifactType string) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	seen := map[digest.Digest]bool{}
	for _, d := range all {
		if err := manifest.CheckDescriptor(d); err != nil {
			return nil, fmt.Errorf("list of referrers: %w", err)
		}
		if !seen[d.Digest] && (artifactType == "" || d.ArtifactType == artifactType) {
			seen[d.Digest] = true
			out = append(out, d)
		}
	}
	return out, nil
}

// fallbackTag is where a registry without the referrers API keeps the list: an
// index that clients write (distribution-spec, "Referrers Tag Schema").
func fallbackTag(d digest.Digest) string {
	hex := d.Encoded()
	return d.Algorithm().String() + "-" + hex[:min(64, len(hex))]
}

func (r *remoteRepository) taggedReferrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	_, doc, err := r.manifest(ctx, fallbackTag(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse("", doc)
	if err == nil && !manifest.IsIndex(m.MediaType) {
		err = fmt.Errorf("tag %s of %s is not a list of referrers but a %q", fallbackTag(d), r.name, m.MediaType)
	}
	return m.Manifests, err
}

// rewrites is how often a list that someone else overwrote is written again.
const rewrites = 5

// listReferrer adds a manifest to the list that an old registry keeps under a
// tag. The tag is read, changed and written, and the protocol cannot say "only
// if nobody else did": so slipway writes one list at a time in one process, reads
// it again after writing, and adds what another process took away. Two processes
// that write at exactly the same moment again and again can still lose an entry
// after this one has looked.
func (r *remoteRepository) listReferrer(ctx context.Context, m manifest.Manifest, d ocispec.Descriptor) error {
	r.client.fallback.Lock()
	defer r.client.fallback.Unlock()
	subject := m.Subject.Digest
	is := func(o ocispec.Descriptor) bool { return o.Digest == d.Digest }
	for range rewrites {
		all, err := r.taggedReferrers(ctx, subject)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(all, is) {
			return nil
		}
		doc, err := json.Marshal(ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: append(all, d),
		})
		if err != nil {
			return err
		}
		if _, err := r.putManifest(ctx, fallbackTag(subject), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex}, doc); err != nil {
			return err
		}
	}
	all, err := r.taggedReferrers(ctx, subject)
	if err == nil && !slices.ContainsFunc(all, is) {
		err = fmt.Errorf("list %s as a referrer of %s in %s: other writers overwrote the list %d times; use a registry with the referrers API, such as `slipway registry serve`, or write from one place", d.Digest, subject, r.name, rewrites)
	}
	return err
}

// readJSON reads one page of a list.
func readJSON(r io.Reader, into any) error {
	b, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return err
	}
	if len(b) > maxDocument {
		return fmt.Errorf("a list of more than %d bytes", maxDocument)
	}
	return json.Unmarshal(b, into)
}
