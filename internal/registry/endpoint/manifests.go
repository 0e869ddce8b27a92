package endpoint

import (
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/local"
	"slipway/internal/registry/manifest"
)

func ocispecDigest(d digest.Digest) ocispec.Descriptor { return ocispec.Descriptor{Digest: d} }

// getManifest answers GET and HEAD by tag or digest. The media type is the
// manifest's own, whatever the client would rather have: another would be
// another manifest.
func getManifest(c *call) error {
	if err := c.checkReference(); err != nil {
		return err
	}
	d, err := c.repo.Resolve(c.r.Context(), c.ref)
	if err != nil {
		return coded("MANIFEST", err)
	}
	_, doc, err := c.repo.Manifest(c.r.Context(), d.Digest)
	if err != nil {
		return coded("MANIFEST", err)
	}
	h := c.w.Header()
	h.Set("Docker-Content-Digest", d.Digest.String())
	h.Set("ETag", `"`+d.Digest.String()+`"`)
	return c.bytes(http.StatusOK, d.MediaType, doc)
}

// checkReference refuses what is neither a digest nor a tag.
func (c *call) checkReference() error {
	if strings.Contains(c.ref, ":") {
		_, err := readDigest(c.ref)
		return err
	}
	if err := local.CheckTag(c.ref); err != nil {
		return badRequest("TAG_INVALID", "%v", err)
	}
	return nil
}

// maxTags bounds the tags that one push may set.
const maxTags = 64

// putManifest takes a manifest under its digest or a tag, and further tags as
// parameters (distribution-spec 1.2).
func putManifest(c *call) error {
	if err := c.checkReference(); err != nil {
		return err
	}
	tags := c.r.URL.Query()["tag"]
	if !strings.Contains(c.ref, ":") {
		tags = append(tags, c.ref)
	}
	if len(tags) > maxTags {
		return badRequest("TAG_INVALID", "%d tags at once, the most is %d", len(tags), maxTags)
	}
	for _, tag := range tags {
		if err := local.CheckTag(tag); err != nil {
			return badRequest("TAG_INVALID", "%v", err)
		}
	}
	doc, err := io.ReadAll(http.MaxBytesReader(c.w, io.NopCloser(c.body()), manifest.MaxSize))
	if err != nil {
		return err
	}
	d := ocispec.Descriptor{Digest: digest.FromBytes(doc), Size: int64(len(doc))}
	if strings.Contains(c.ref, ":") {
		d.Digest = digest.Digest(c.ref)
	}
	d.MediaType, _, _ = strings.Cut(c.r.Header.Get("Content-Type"), ";")
	if err := c.repo.PutManifest(c.r.Context(), d, doc); err != nil {
		return coded("MANIFEST", err)
	}
	for _, tag := range tags {
		if err := c.repo.Tag(c.r.Context(), tag, d.Digest); err != nil {
			return coded("MANIFEST", err)
		}
	}
	h := c.w.Header()
	if m, err := manifest.Parse("", doc); err == nil && m.Subject != nil {
		h.Set("OCI-Subject", m.Subject.Digest.String())
	}
	for _, tag := range c.r.URL.Query()["tag"] {
		h.Add("OCI-Tag", tag)
	}
	h.Set("Location", "/v2/"+c.repo.Name()+"/manifests/"+d.Digest.String())
	h.Set("Docker-Content-Digest", d.Digest.String())
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

// deleteManifest deletes a manifest by digest, or a tag alone.
func deleteManifest(c *call) error {
	if err := c.checkReference(); err != nil {
		return err
	}
	var err error
	if strings.Contains(c.ref, ":") {
		err = c.repo.Delete(c.r.Context(), digest.Digest(c.ref))
	} else {
		err = c.repo.Untag(c.r.Context(), c.ref)
	}
	if err != nil {
		return coded("MANIFEST", err)
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}
