package registry

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	"slipway/internal/registry/local"
	"slipway/internal/registry/manifest"
)

// Reference is what a user writes for an image: REPOSITORY, REPOSITORY:TAG,
// REPOSITORY@DIGEST or all three. A repository whose first part looks like a
// host (it has a dot or a port, or is localhost) is in that registry; every
// other one is in the local store.
type Reference struct {
	Repository string
	Tag        string
	Digest     digest.Digest
}

var hostGrammar = regexp.MustCompile(`^([a-zA-Z0-9]+([.-]+[a-zA-Z0-9]+)*|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?$`)

// ParseReference reads a reference. Of a tag and a digest the digest counts.
func ParseReference(s string) (Reference, error) {
	rest, dgst, pinned := strings.Cut(s, "@")
	r := Reference{Repository: rest}
	if pinned {
		r.Digest = digest.Digest(dgst)
		if err := manifest.CheckDigest(r.Digest); err != nil {
			return Reference{}, fmt.Errorf("image %.300q: %w", s, err)
		}
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		r.Repository, r.Tag = rest[:i], rest[i+1:]
		if err := local.CheckTag(r.Tag); err != nil {
			return Reference{}, fmt.Errorf("image %.300q: %w", s, err)
		}
	}
	host, path := splitHost(r.Repository)
	if host != "" && !hostGrammar.MatchString(host) {
		return Reference{}, fmt.Errorf("image %.300q: %q is not a host; write HOST/NAME or HOST:PORT/NAME", s, host)
	}
	if err := local.CheckName(path); err != nil {
		return Reference{}, fmt.Errorf("image %.300q: %w", s, err)
	}
	return r, nil
}

// Host is the registry, "" for the local store.
func (r Reference) Host() string {
	host, _ := splitHost(r.Repository)
	return host
}

func (r Reference) String() string {
	s := r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// splitHost divides a repository as Docker does.
func splitHost(repository string) (host, path string) {
	first, rest, ok := strings.Cut(repository, "/")
	if ok && (first == "localhost" || strings.ContainsAny(first, ".:")) {
		return first, rest
	}
	return "", repository
}
