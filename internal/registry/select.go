package registry

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// candidate is one image of a file.
type candidate struct {
	names  []string // references or tags recorded for it
	digest digest.Digest
	detail string // platform, for the list in an error
}

// choose picks the image meant by want. A single image is it, whatever its name.
func choose(all []candidate, want string) (int, error) {
	switch {
	case len(all) == 0:
		return 0, errors.New("no image in it; make the file again")
	case len(all) == 1:
		return 0, nil
	}
	match := func(c candidate) bool {
		return want != "" && (c.digest.String() == want || slices.ContainsFunc(c.names, func(n string) bool { return sameName(n, want) }))
	}
	if i := slices.IndexFunc(all, match); i >= 0 {
		if slices.IndexFunc(all[i+1:], match) >= 0 {
			return 0, fmt.Errorf("several images are called %q; name one by its digest: %s", want, list(all))
		}
		return i, nil
	}
	return 0, fmt.Errorf("several images are in it; name one: %s", list(all))
}

// list names images for an error message, a few of them.
func list(all []candidate) string {
	const most = 12
	var out []string
	for i, c := range all {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more", len(all)-most))
			break
		}
		s := c.digest.String()
		if len(c.names) > 0 {
			s = strings.Join(c.names, " = ")
		}
		if c.detail != "" {
			s += " (" + c.detail + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

// sameName compares references the way Docker reads them: "app" is
// "docker.io/library/app:latest". A recorded name may also be a bare tag.
func sameName(recorded, want string) bool {
	if recorded == want {
		return true
	}
	a, err := reference.ParseDockerRef(recorded)
	if err != nil {
		return false
	}
	b, err := reference.ParseDockerRef(want)
	return err == nil && a.String() == b.String()
}

// forPlatform picks the manifest of an index that runs on p.
func forPlatform(all []ocispec.Descriptor, p ocispec.Platform) (ocispec.Descriptor, error) {
	match := platforms.OnlyStrict(p)
	var have []string
	var best *ocispec.Descriptor
	for _, d := range all {
		if d.Platform == nil || d.Platform.OS == "unknown" { // attestations of BuildKit
			continue
		}
		have = append(have, platforms.Format(*d.Platform))
		if match.Match(*d.Platform) && (best == nil || match.Less(*d.Platform, *best.Platform)) {
			best = &d
		}
	}
	if best == nil {
		return ocispec.Descriptor{}, fmt.Errorf("no image for %s in it, only for: %s; choose one of them", platforms.Format(p), strings.Join(have, ", "))
	}
	return *best, nil
}

// samePlatform reports whether an image for have is what was asked for with want.
func samePlatform(want, have ocispec.Platform) bool {
	return platforms.OnlyStrict(want).Match(have)
}
