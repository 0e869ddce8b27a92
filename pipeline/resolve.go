package pipeline

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// resolver turns yaml.v3's nodes into ours: it follows aliases, joins merge
// keys and refuses what would be silently lost (a key given twice) or never end
// (an anchor inside itself, depth, merges that multiply).
type resolver struct {
	errs *problems
	done map[*yaml.Node]*node
	open map[*yaml.Node]bool
	left int // pairs that merge keys may still copy
}

func place(n *yaml.Node) position { return position{n.Line, n.Column} }

// resolve returns an empty scalar where it reported a problem.
func (r *resolver) resolve(y *yaml.Node, depth int) *node {
	at := place(y)
	if y.Kind == yaml.AliasNode {
		y = y.Alias
	}
	if r.open[y] {
		r.errs.add(at, "the anchor &%s stands inside itself; an alias cannot repeat what holds it", y.Anchor)
		return &node{at: at, tag: "!!null"}
	}
	if n := r.done[y]; n != nil {
		if depth+n.height > maxDepth {
			r.tooDeep(at)
		}
		return n
	}
	if depth > maxDepth {
		r.tooDeep(at)
		return &node{at: at, tag: "!!null"}
	}
	r.open[y] = true
	n := r.build(y, depth)
	delete(r.open, y)
	r.done[y] = n
	return n
}

func (r *resolver) tooDeep(at position) {
	r.errs.add(at, "more than %d levels deep; no pipeline needs that", maxDepth)
}

func (r *resolver) build(y *yaml.Node, depth int) *node {
	n := &node{at: place(y)}
	switch y.Kind {
	case yaml.SequenceNode:
		n.kind = listNode
		r.tagIs(y, "!!seq")
		for _, item := range y.Content {
			n.items = append(n.items, n.above(r.resolve(item, depth+1)))
		}
	case yaml.MappingNode:
		n.kind = mapNode
		r.tagIs(y, "!!map")
		r.mapping(n, y, depth)
	default:
		n.tag, n.text = y.ShortTag(), y.Value
		if y.Style&yaml.TaggedStyle != 0 && n.tag != "!!str" {
			r.errs.add(n.at, "the tag %s is not known here; write the value without a tag", n.tag)
			break
		}
		switch n.tag {
		case "!!str", "!!int", "!!float", "!!bool", "!!null":
		case "!!timestamp", "!!merge":
			n.tag = "!!str"
		default:
			r.errs.add(n.at, "the tag %s is not known here; write the value without a tag", n.tag)
		}
	}
	return n
}

// above notes that n holds child.
func (n *node) above(child *node) *node {
	n.height = max(n.height, child.height+1)
	return child
}

func (r *resolver) tagIs(y *yaml.Node, want string) {
	if y.Tag != "" && y.ShortTag() != want {
		r.errs.add(place(y), "the tag %s is not known here; write the value without a tag", y.ShortTag())
	}
}

func (r *resolver) mapping(n *node, y *yaml.Node, depth int) {
	seen := map[string]position{}
	var merges []*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			merges = append(merges, r.resolve(v, depth+1))
			continue
		}
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			r.errs.add(place(k), "a key must be a plain name; put quotes around it if it begins with [, { or ?")
			continue
		}
		if first, twice := seen[k.Value]; twice {
			r.errs.add(place(k), "%q is given twice, first on line %d; keep one", k.Value, first.line)
			continue
		}
		seen[k.Value] = place(k)
		n.pairs = append(n.pairs, pair{k.Value, place(k), n.above(r.resolve(v, depth+1))})
	}
	for _, m := range merges {
		r.merge(n, m, seen)
	}
}

// merge adds the pairs of source that n does not have itself, as YAML 1.1's
// "<<" does: an earlier source wins over a later one.
func (r *resolver) merge(n, source *node, seen map[string]position) {
	switch {
	case source.kind == listNode:
		for _, item := range source.items {
			if item.kind == listNode {
				r.errs.add(item.at, `"<<" takes a map or a list of maps`)
				continue
			}
			r.merge(n, item, seen)
		}
	case source.kind != mapNode:
		r.errs.add(source.at, `"<<" takes a map or a list of maps, such as "<<: *defaults"`)
	default:
		for _, p := range source.pairs {
			if r.left--; r.left < 0 {
				r.errs.add(n.at, "merge keys copy more than %d values; no pipeline needs that", maxMerged)
				return
			}
			if _, own := seen[p.key]; own || strings.HasPrefix(p.key, "x-") {
				continue
			}
			seen[p.key] = p.at
			n.above(p.value)
			n.pairs = append(n.pairs, p)
		}
	}
}
