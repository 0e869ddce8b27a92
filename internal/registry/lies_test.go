package registry

import (
	"context"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// liar is a repository whose lists of referrers are somebody's invention.
type liar struct {
	Repository
	lists map[digest.Digest][]ocispec.Descriptor
}

func (l liar) Referrers(_ context.Context, d digest.Digest, _ string) ([]ocispec.Descriptor, error) {
	return l.lists[d], nil
}

// A list of referrers may go in circles, name what is gone, and claim what is
// not so: a copy ends all the same, and carries nothing under a wrong name.
func TestWrongListsOfReferrers(t *testing.T) {
	at := localPlace(t)
	r := at("app")
	d, other := push(t, r, "one"), push(t, r, "two")
	a, b := attach(t, r, d, "application/x", "a"), attach(t, r, d, "application/x", "b")
	gone := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("gone"), Size: 4}
	for name, tt := range map[string]struct {
		lists map[digest.Digest][]ocispec.Descriptor
		want  string
	}{
		"circle":      {map[digest.Digest][]ocispec.Descriptor{d.Digest: {a, b}, a.Digest: {b, d, a}, b.Digest: {a, d}}, ""},
		"gone":        {map[digest.Digest][]ocispec.Descriptor{d.Digest: {a, gone, b}}, ""},
		"of another":  {map[digest.Digest][]ocispec.Descriptor{d.Digest: {other}}, "which it is not"},
		"not a proof": {map[digest.Digest][]ocispec.Descriptor{a.Digest: {b}, d.Digest: {a}}, "which it is not"},
	} {
		t.Run(name, func(t *testing.T) {
			to := localPlace(t)("app")
			got, err := Copy(t.Context(), liar{r, tt.lists}, d, to, CopyOptions{})
			if tt.want != "" {
				wantError(t, err, tt.want)
				return
			}
			must(t, err)
			if all, err := to.Referrers(t.Context(), d.Digest, ""); len(all) != 2 || err != nil {
				t.Errorf("%d referrers arrived, %v: %+v", len(all), err, got)
			}
		})
	}
}
