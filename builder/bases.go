package builder

import (
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// fromStep is how BuildKit calls the step that brings an image in:
// "[build 1/4] FROM docker.io/library/debian:12@sha256:…".
var fromStep = regexp.MustCompile(`(?:^|\] )FROM (\S+)@(sha256:[0-9a-f]{64})$`)

// bases are the images from outside that a build stands on, with the digests
// BuildKit resolved them to: those it was given by digest, and those its steps
// name. An image that no stage it built needs is not among them.
func (in *inputs) bases(steps []pipeline.Step) map[string]digest.Digest {
	taken := map[string]digest.Digest{}
	for _, s := range steps {
		if m := fromStep.FindStringSubmatch(s.Name); m != nil {
			taken[m[1]] = digest.Digest(m[2])
		}
	}
	all := map[string]digest.Digest{}
	for _, ref := range in.refs {
		if given, ok := strings.CutPrefix(in.contexts[ref.Context], layout("")); ok {
			all[ref.Name] = digest.Digest(given)
			continue
		}
		name, pinned, _ := strings.Cut(ref.Name, "@")
		if d, ok := taken[name]; ok {
			all[name] = d
		} else if pinned != "" {
			all[name] = digest.Digest(pinned)
		}
	}
	return all
}
