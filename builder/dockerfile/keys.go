package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/llbsolver/ops"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// keys are those of one node's result.
type keys struct {
	// key changes when BuildKit's own cache key does.
	key digest.Digest
	// loose is key without the content that is taken from other stages and
	// images: only building them tells whether that changed.
	loose digest.Digest
	// literal says that the node's content is written out in its definition.
	literal bool
	unsure  []string // why key may not be what a build would come to
	always  string   // why the node runs each time
	sources []Source // files of local directories that it takes
}

// keyer computes keys by asking BuildKit's operations for their cache maps.
type keyer struct {
	rec     *recorder
	file    string // name of the Dockerfile
	digests *Digests
	trees   map[*node]*tree
	done    map[*node]*keys
}

// close lets go of the directories read.
func (k *keyer) close() {
	for _, t := range k.trees {
		t.close()
	}
}

// compute fills in the keys of every node of g.
func (k *keyer) compute(ctx context.Context, g *graph) error {
	for _, n := range g.nodes {
		var err error
		if n.op.GetSource() != nil {
			k.done[n], err = k.source(ctx, n)
		} else {
			k.done[n], err = k.step(ctx, n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func isLocal(n *node) bool {
	return strings.HasPrefix(n.op.GetSource().GetIdentifier(), "local://")
}

// source is keyed by what it stands for, not by how it is called: BuildKit's
// image source does so too (manifest digest and platform).
func (k *keyer) source(ctx context.Context, n *node) (*keys, error) {
	id, attrs := n.op.GetSource().Identifier, n.op.GetSource().Attrs
	scheme, rest, _ := strings.Cut(id, "://")
	out := &keys{}
	switch scheme {
	case "local":
		dir, ok := k.rec.dirs[rest]
		if !ok {
			return nil, fmt.Errorf("the frontend asks for a local directory %q that it was not given", rest)
		}
		t, err := readTree(ctx, dir, attrs, k.digests)
		if err != nil {
			return nil, err
		}
		k.trees[n] = t
		return out, nil
	case "docker-image", "oci-layout":
		name, d, _ := strings.Cut(rest, "@")
		if scheme == "oci-layout" {
			name = k.rec.byDigest[digest.Digest(d)]
		}
		out.key = hash("image", d, n.op.GetPlatform().String())
		if why := k.rec.unsure(name, d); why != "" {
			out.unsure = []string{why}
		}
	case "http", "https":
		out.key = hash("http", id, attrs[pb.AttrHTTPChecksum], attrs[pb.AttrHTTPFilename])
		if attrs[pb.AttrHTTPChecksum] == "" {
			out.unsure = []string{id + " is asked for anew each time; give it a --checksum to pin it"}
		}
	case "git":
		out.key = hash("git", id)
		if !pinned.MatchString(id) {
			out.unsure = []string{id + " may have new commits; name a full commit to pin it"}
		}
	default:
		out.key = hash("source", id)
		out.unsure = []string{"it takes " + id}
	}
	out.loose = out.key
	return out, nil
}

var pinned = regexp.MustCompile(`#[0-9a-f]{40}(:|$)`)

// unsure is why the record of an image may not be what a build would find.
func (c *recorder) unsure(name, d string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if img, ok := c.images[name]; ok {
		return img.Unsure
	}
	for n, img := range c.images {
		if img.Digest.String() == d && strings.HasPrefix(n, name+"@") {
			return img.Unsure
		}
	}
	return ""
}

// BuildKit does not look a step up through one that was made to run, except by
// the content it takes.
const (
	afterForced     = "it stands on a step that runs each time"
	contentOfForced = "it takes files of a step that runs each time; they may be the same"
)

// step is keyed by BuildKit's digest of the operation and the keys of its
// inputs, or their content where BuildKit would look at that.
func (k *keyer) step(ctx context.Context, n *node) (*keys, error) {
	cm, err := cacheMap(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.Name(), err)
	}
	out := &keys{literal: literalOp(n)}
	strict, loose := []string{"step", cm.Digest.String()}, []string{"step", cm.Digest.String()}
	for i, in := range n.inputs {
		content, selector := cm.Deps[i].ComputeDigestFunc, cm.Deps[i].Selector.String()
		if isLocal(in.node) {
			if content == nil {
				out.always = "it stands on a local directory itself, which is never cached"
				continue
			}
			sum, err := content(ctx, k.trees[in.node].ref.result(), nil)
			if err != nil {
				return nil, k.contextError(n, err)
			}
			strict, loose = append(strict, sum.String()), append(loose, sum.String())
			out.sources = append(out.sources, k.trees[in.node].selected(selections(n, int64(i)))...)
			continue
		}
		from := k.done[in.node]
		if in.meta.GetProgressGroup().GetWeak() {
			out.sources = append(out.sources, from.sources...)
		}
		if from.always != "" && content == nil {
			out.always = afterForced
		}
		at := fmt.Sprintf("%d %s", in.index, selector)
		strict = append(strict, from.key.String(), at)
		if content != nil && !from.literal {
			loose = append(loose, "*")
		} else {
			loose = append(loose, from.loose.String(), at)
		}
		out.literal = out.literal && from.literal
		why := from.unsure
		if from.always != "" && content != nil {
			why = append(slices.Clone(why), contentOfForced)
		}
		for _, why := range why {
			if !slices.Contains(out.unsure, why) {
				out.unsure = append(out.unsure, why)
			}
		}
	}
	if n.meta.GetIgnoreCache() {
		out.always = "its cache is turned off"
	}
	out.key, out.loose = hash(strict...), hash(loose...)
	return out, nil
}

// cacheMap asks BuildKit's own operation.
func cacheMap(ctx context.Context, n *node) (*solver.CacheMap, error) {
	var op solver.Op
	var err error
	switch o := n.op.Op.(type) {
	case *pb.Op_Exec:
		op, err = ops.NewExecOp(n, o, n.op.Platform, nil, nil, nil, nil, nil, nil, false)
	case *pb.Op_File:
		op, err = ops.NewFileOp(n, o, nil, nil, nil)
	case *pb.Op_Merge:
		op, err = ops.NewMergeOp(n, o, nil)
	case *pb.Op_Diff:
		op, err = ops.NewDiffOp(n, o, nil)
	default:
		return nil, fmt.Errorf("an operation (%T) that slipway does not know", o)
	}
	if err != nil {
		return nil, err
	}
	cm, _, err := op.CacheMap(ctx, nil, 0)
	return cm, err
}

// literalOp is true for files written out in the Dockerfile: its heredocs.
func literalOp(n *node) bool {
	f := n.op.GetFile()
	if f == nil {
		return false
	}
	for _, a := range f.Actions {
		if a.GetMkfile() == nil && a.GetMkdir() == nil {
			return false
		}
	}
	return true
}

var (
	missing  = regexp.MustCompile(`"([^"]+)": not found`)
	wildcard = regexp.MustCompile(`[*?\[]`)
)

// contextError says which file a step wants and does not find.
func (k *keyer) contextError(n *node, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	out := &SyntaxError{File: k.file, Line: n.lines.first, Message: fmt.Sprintf("%s: %v", n.Name(), err)}
	if m := missing.FindStringSubmatch(err.Error()); m != nil {
		out.Message = fmt.Sprintf("there is no %q in the build context, or .dockerignore leaves it out", strings.TrimPrefix(m[1], "/"))
	}
	return out
}

// selections are the paths that n takes from its input i.
func selections(n *node, i int64) []selection {
	var out []selection
	for _, a := range n.op.GetFile().GetActions() {
		if c := a.GetCopy(); c != nil && a.SecondaryInput == i {
			out = append(out, selection{
				path:     path.Join("/", c.Src),
				wildcard: c.AllowWildcard && wildcard.MatchString(c.Src),
				include:  c.IncludePatterns,
				exclude:  c.ExcludePatterns,
			})
		}
	}
	for _, m := range n.op.GetExec().GetMounts() {
		if m.Input == i {
			out = append(out, selection{path: path.Join("/", m.Selector)})
		}
	}
	return out
}

func hash(parts ...string) digest.Digest {
	d := digest.SHA256.Digester()
	for _, p := range parts {
		fmt.Fprintf(d.Hash(), "%d:%s,", len(p), p)
	}
	return d.Digest()
}
