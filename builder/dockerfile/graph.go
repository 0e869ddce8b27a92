package dockerfile

import (
	"errors"
	"fmt"

	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// graph is a decoded LLB definition, inputs before users.
type graph struct {
	nodes []*node
	head  edge // what is asked for
}

// edge is one output of a node.
type edge struct {
	*node
	index int64
}

// node is one operation. It stands in for a solver.Vertex where BuildKit's own
// operations are asked for their cache keys.
type node struct {
	digest digest.Digest
	op     *pb.Op
	meta   *pb.OpMetadata
	inputs []edge
	lines  lineRange
}

var _ solver.Vertex = (*node)(nil)

// lineRange is the place in the Dockerfile, 1-based and inclusive; zero when there is none.
type lineRange struct{ first, last int }

func decode(def *pb.Definition) (*graph, error) {
	if def == nil || len(def.Def) == 0 {
		return nil, errors.New("the frontend gave an empty definition")
	}
	g := &graph{}
	byDigest := map[digest.Digest]*node{}
	for _, dt := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(dt); err != nil {
			return nil, fmt.Errorf("the frontend's definition: %w", err)
		}
		n := &node{digest: digest.FromBytes(dt), op: &op}
		n.meta = def.Metadata[n.digest.String()]
		n.lines = place(def.Source, n.digest)
		for _, in := range op.Inputs {
			from, ok := byDigest[digest.Digest(in.Digest)]
			if !ok {
				return nil, fmt.Errorf("the frontend's definition: input %s comes after its user", in.Digest)
			}
			n.inputs = append(n.inputs, edge{from, in.Index})
		}
		byDigest[n.digest] = n
		g.nodes = append(g.nodes, n)
	}
	// The last one only names the output.
	last := g.nodes[len(g.nodes)-1]
	if last.op.Op != nil || len(last.inputs) != 1 {
		return nil, errors.New("the frontend's definition has no end")
	}
	g.nodes, g.head = g.nodes[:len(g.nodes)-1], last.inputs[0]
	return g, nil
}

func place(src *pb.Source, d digest.Digest) lineRange {
	var r lineRange
	if src == nil || src.Locations[d.String()] == nil {
		return r
	}
	for _, loc := range src.Locations[d.String()].Locations {
		for _, p := range loc.Ranges {
			if first := int(p.GetStart().GetLine()); r.first == 0 || first < r.first {
				r.first = first
			}
			r.last = max(r.last, int(p.GetEnd().GetLine()))
		}
	}
	return r
}

// Digest implements solver.Vertex.
func (n *node) Digest() digest.Digest { return n.digest }

// Sys implements solver.Vertex.
func (n *node) Sys() any { return n.op }

// Options implements solver.Vertex.
func (n *node) Options() solver.VertexOptions { return solver.VertexOptions{} }

// Inputs implements solver.Vertex. Only their number is looked at.
func (n *node) Inputs() []solver.Edge { return make([]solver.Edge, len(n.inputs)) }

// Name implements solver.Vertex: what BuildKit's progress calls it.
func (n *node) Name() string { return n.meta.GetDescription()["llb.customname"] }
