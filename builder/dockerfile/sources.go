package dockerfile

import (
	"path"
	"strings"

	"github.com/moby/patternmatcher"
)

// Source is a file that a step takes from a local directory. Its Sum covers
// content, mode and extended attributes; it tells versions of one file apart
// and is no digest of the content.
type Source struct {
	Path string `json:"p"` // slash-separated, relative; a directory ends in "/"
	Sum  string `json:"s"`
}

// selection is a path of a COPY, ADD or mount. It serves to explain a change
// only: the key comes from BuildKit's own reading of the path.
type selection struct {
	path             string // clean, absolute
	wildcard         bool
	include, exclude []string // below path
}

const maxLinks = 40

// selected lists the entries that any of the selections takes.
func (t *tree) selected(sels []selection) []Source {
	links := map[string]string{}
	for _, e := range t.entries {
		if e.link() {
			links["/"+e.path] = e.stat.Linkname
		}
	}
	taken := make([]bool, len(t.entries))
	for _, s := range sels {
		s.path = follow(links, s.path)
		include, exclude := matcher(s.include), matcher(s.exclude)
		for i, e := range t.entries {
			taken[i] = taken[i] || s.takes("/"+e.path, include, exclude)
		}
	}
	var out []Source
	for i, e := range t.entries {
		if !taken[i] {
			continue
		}
		src := Source{Path: e.path, Sum: e.sum.Encoded()[:16]}
		if e.dir() {
			src.Path += "/"
		}
		out = append(out, src)
	}
	return out
}

// takes is whether the selection holds the absolute path p.
func (s *selection) takes(p string, include, exclude *patternmatcher.PatternMatcher) bool {
	base := s.path
	if s.wildcard {
		depth := strings.Count(base, "/")
		parts := strings.SplitN(p, "/", depth+2)
		if len(parts) <= depth {
			return false
		}
		head := strings.Join(parts[:depth+1], "/")
		if ok, err := path.Match(base, head); err != nil || !ok {
			return false
		}
		base = head
	}
	if p != base && !strings.HasPrefix(p, strings.TrimSuffix(base, "/")+"/") {
		return false
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(p, base), "/")
	if rel == "" {
		rel = path.Base(p)
	}
	if include != nil {
		if ok, err := include.MatchesOrParentMatches(rel); err == nil && !ok {
			return false
		}
	}
	if exclude != nil {
		if ok, err := exclude.MatchesOrParentMatches(rel); err == nil && ok {
			return false
		}
	}
	return true
}

func matcher(patterns []string) *patternmatcher.PatternMatcher {
	if len(patterns) == 0 {
		return nil
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil
	}
	return m
}

// follow resolves the links on the way to p, inside the tree.
func follow(links map[string]string, p string) string {
	for range maxLinks {
		next, changed := p, false
		for at := p; at != "/" && at != "."; at = path.Dir(at) {
			to, ok := links[at]
			if !ok {
				continue
			}
			if !path.IsAbs(to) {
				to = path.Join(path.Dir(at), to)
			}
			next, changed = path.Join("/", to, strings.TrimPrefix(p, at)), true
		}
		if !changed {
			return p
		}
		p = next
	}
	return p
}
