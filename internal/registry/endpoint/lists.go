package endpoint

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxPage is how many names one answer lists at most.
const maxPage = 1000

// page cuts a sorted list as the parameters n and last say, and names the next
// part in a Link header.
func (c *call) page(all []string, path string) ([]string, error) {
	q := c.r.URL.Query()
	n := maxPage
	if s := q.Get("n"); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil || v < 0 {
			return nil, badRequest("UNSUPPORTED", "n=%.40q is not a number of entries", s)
		}
		n = min(v, maxPage)
	}
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(all, last)
		if found {
			i++
		}
		all = all[i:]
	}
	if len(all) <= n {
		return all, nil
	}
	all = all[:n]
	if n > 0 {
		next := url.Values{"n": {strconv.Itoa(n)}, "last": {all[n-1]}}
		c.w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, path, next.Encode()))
	}
	return all, nil
}

func listTags(c *call) error {
	tags, err := c.repo.Tags(c.r.Context())
	if err != nil {
		return coded("NAME", err)
	}
	if tags, err = c.page(tags, "/v2/"+c.repo.Name()+"/tags/list"); err != nil {
		return err
	}
	return c.json(http.StatusOK, "application/json", map[string]any{"name": c.repo.Name(), "tags": append([]string{}, tags...)})
}

func catalog(c *call) error {
	names, err := c.Store.Repositories(c.r.Context())
	if err != nil {
		return err
	}
	if names, err = c.page(names, "/v2/_catalog"); err != nil {
		return err
	}
	return c.json(http.StatusOK, "application/json", map[string]any{"repositories": append([]string{}, names...)})
}

// listReferrers answers in one piece: a thousand proofs of one image are some
// hundred kilobytes.
func listReferrers(c *call) error {
	d, err := readDigest(c.ref)
	if err != nil {
		return err
	}
	kind := c.r.URL.Query().Get("artifactType")
	all, err := c.repo.Referrers(c.r.Context(), d, kind)
	if err != nil {
		return err
	}
	if kind != "" {
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return c.json(http.StatusOK, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: append([]ocispec.Descriptor{}, all...),
	})
}
