package promote

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// splice is one change of bytes.
type splice struct {
	at, length int // in bytes
	text       string
}

func (s splice) apply(data []byte) []byte {
	return slices.Concat(data[:s.at], []byte(s.text), data[s.at+s.length:])
}

// setDigest writes the digest of the image called name and nothing else. An
// empty digest is written as "unknown", for a diff.
//
// yaml.v3 says where a value begins, but not where it ends, so there are several
// ways to write; the first that leaves everything else as it was is taken.
func setDigest(file string, data []byte, name, digest string) ([]byte, error) {
	if digest == "" {
		digest = unknown
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	image := imageNode(&doc, name)
	if image == nil {
		return nil, fmt.Errorf("%s: image %s is not written as a map; write it as %s: {}", file, name, name)
	}
	text := text{data}
	for _, s := range append(text.replace(image, digest), text.insert(image, digest)...) {
		if edited := s.apply(data); onlyDigestDiffers(&doc, edited, name, digest) {
			return edited, nil
		}
	}
	return nil, fmt.Errorf("%s:%d: the digest of %s cannot be written without changing more (is it shared through an anchor, or written over several lines?); "+
		"give %s a map of its own with digest: sha256:… on one line", file, image.Line, name, name)
}

// imageNode is the map of an image, aliases followed; nil where there is none.
func imageNode(doc *yaml.Node, name string) *yaml.Node {
	return value(value(follow(doc.Content[0]), "images"), name)
}

func follow(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// value is what key has in n itself, merge keys left aside; nil unless n is a map that has it.
func value(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if follow(n.Content[i]).Value == key {
			return follow(n.Content[i+1])
		}
	}
	return nil
}

// text finds places in a file.
type text struct{ data []byte }

// offset is the byte that a node begins at, behind its anchor and tag; -1 where
// the file has no such place.
func (t text) offset(n *yaml.Node) int {
	at := 0
	for range n.Line - 1 {
		end := bytes.IndexByte(t.data[at:], '\n')
		if end < 0 {
			return -1
		}
		at += end + 1
	}
	for range n.Column - 1 {
		if at == len(t.data) {
			return -1
		}
		_, size := utf8.DecodeRune(t.data[at:])
		at += size
	}
	return at + len(properties.Find(t.data[at:]))
}

var properties = regexp.MustCompile(`^([&!]\S*[ \t]+)*`)

// replace changes the digest that is there, inside its quotes if it has any.
func (t text) replace(image *yaml.Node, digest string) []splice {
	old := value(image, "digest")
	if old == nil || old.Kind != yaml.ScalarNode {
		return nil
	}
	return t.rewrite(old, digest)
}

// rewrite replaces a scalar that is written as it reads, inside its quotes if it has any.
func (t text) rewrite(scalar *yaml.Node, value string) []splice {
	at := t.offset(scalar)
	if at < 0 {
		return nil
	}
	if rest := t.data[at:]; len(rest) > 0 && (rest[0] == '"' || rest[0] == '\'') {
		at++
	}
	if !bytes.HasPrefix(t.data[at:], []byte(scalar.Value)) {
		return nil
	}
	return []splice{{at, len(scalar.Value), value}}
}

// insert adds a digest to a map that has none: best at its end, else at its beginning.
func (t text) insert(image *yaml.Node, digest string) []splice {
	if value(image, "digest") != nil {
		return nil
	}
	pair := `digest: "` + digest + `"`
	if image.Style&yaml.FlowStyle != 0 {
		return t.insertFlow(image, pair)
	}
	if len(image.Content) == 0 {
		return nil
	}
	first := image.Content[0]
	start := t.offset(first)
	last := t.offset(image.Content[len(image.Content)-1])
	if start < 0 || last < 0 {
		return nil
	}
	indent := strings.Repeat(" ", first.Column-1)
	end := bytes.IndexByte(t.data[last:], '\n')
	if end < 0 {
		return []splice{{len(t.data), 0, t.lineEnd() + indent + pair}, {start, 0, pair + t.lineEnd() + indent}}
	}
	return []splice{{last + end + 1, 0, indent + pair + t.lineEnd()}, {start, 0, pair + t.lineEnd() + indent}}
}

func (t text) insertFlow(image *yaml.Node, pair string) []splice {
	open := t.offset(image)
	if open < 0 || open >= len(t.data) || t.data[open] != '{' {
		return nil
	}
	if len(image.Content) == 0 {
		return []splice{{open + 1, 0, pair}}
	}
	value := image.Content[len(image.Content)-1]
	last := t.offset(value)
	if last < 0 {
		return nil
	}
	ways := t.behind(value, last, ", "+pair)
	const most = 20
	for at := last; at < len(t.data) && len(ways) < most; at++ {
		if t.data[at] == '}' || t.data[at] == ',' {
			end := len(bytes.TrimRight(t.data[:at], " \t\r\n"))
			ways = append(ways, splice{max(end, last), 0, ", " + pair})
		}
	}
	gap := " "
	if open+1 < len(t.data) && bytes.IndexByte([]byte(" \t\r\n"), t.data[open+1]) >= 0 {
		gap = ""
	}
	return append(ways, splice{open + 1, 0, pair + "," + gap})
}

// behind puts text directly after a scalar that is written as it reads.
func (t text) behind(scalar *yaml.Node, at int, text string) []splice {
	if scalar.Kind != yaml.ScalarNode {
		return nil
	}
	for _, quote := range []string{"", `"`, "'"} {
		if written := quote + scalar.Value + quote; bytes.HasPrefix(t.data[at:], []byte(written)) {
			return []splice{{at + len(written), 0, text}}
		}
	}
	return nil
}

// lineEnd is what ends the file's first line.
func (t text) lineEnd() string {
	line, _, _ := bytes.Cut(t.data, []byte("\n"))
	if bytes.HasSuffix(line, []byte("\r")) {
		return "\r\n"
	}
	return "\n"
}

// onlyDigestDiffers says whether edited says the same as doc, but for the digest
// of the image called name, which is digest.
func onlyDigestDiffers(doc *yaml.Node, edited []byte, name, digest string) bool {
	var after yaml.Node
	if err := yaml.Unmarshal(edited, &after); err != nil || len(after.Content) == 0 {
		return false
	}
	image := imageNode(&after, name)
	if image == nil {
		return false
	}
	got := value(image, "digest")
	if got == nil || got.Kind != yaml.ScalarNode || got.Value != digest || got.ShortTag() != "!!str" {
		return false
	}
	before := imageNode(doc, name)
	for _, n := range []*yaml.Node{value(follow(doc.Content[0]), "images"), before, value(before, "digest")} {
		if n != nil && aliased(doc, n) {
			return false
		}
	}
	c := comparison{skip: map[*yaml.Node]bool{before: true, image: true}}
	return c.same(doc, &after)
}

// aliased says whether an alias anywhere stands for n: what changes n then changes that too.
func aliased(root, n *yaml.Node) bool {
	if root.Kind == yaml.AliasNode {
		return root.Alias == n
	}
	return slices.ContainsFunc(root.Content, func(c *yaml.Node) bool { return aliased(c, n) })
}

// comparison compares two documents without places, styles and comments.
type comparison struct {
	skip map[*yaml.Node]bool // images whose digest is left aside
}

func (c comparison) same(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.Value != b.Value || a.Anchor != b.Anchor || a.ShortTag() != b.ShortTag() {
		return false
	}
	if a.Kind == yaml.AliasNode {
		return true // of the same name; what it stands for is compared where it stands
	}
	return slices.EqualFunc(c.content(a), c.content(b), c.same)
}

func (c comparison) content(n *yaml.Node) []*yaml.Node {
	if !c.skip[n] {
		return n.Content
	}
	var out []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != "digest" {
			out = append(out, n.Content[i], n.Content[i+1])
		}
	}
	return out
}
