package promote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"gopkg.in/yaml.v3"
)

// setImage writes a digest wherever a file names an image of a repository, and
// says at how many places. Nothing else in the file changes. It knows env files
// (KEY=REPOSITORY…) by their name, and YAML: image: REPOSITORY… of Compose and
// Kubernetes, and Kustomize's images with name or newName REPOSITORY.
func setImage(file string, data []byte, repository string, d digest.Digest) ([]byte, int, error) {
	if isEnvFile(file) {
		edited, found := envFile(data, repository, d)
		return edited, len(found), nil
	}
	root, err := parseDocuments(file, data)
	if err != nil {
		return nil, 0, err
	}
	places := imagePlaces(root, nil, repository)
	for _, at := range places {
		if data, err = setPlace(file, data, at, repository, d); err != nil {
			return nil, 0, err
		}
	}
	return data, len(places), nil
}

// imagesIn lists the digests that a file has for a repository; "" for one named without.
func imagesIn(file string, data []byte, repository string) ([]digest.Digest, error) {
	if isEnvFile(file) {
		_, found := envFile(data, repository, "")
		return found, nil
	}
	root, err := parseDocuments(file, data)
	if err != nil {
		return nil, err
	}
	var all []digest.Digest
	for _, at := range imagePlaces(root, nil, repository) {
		n := nodeAt(root, at)
		if n.Kind == yaml.MappingNode {
			if old := value(n, "digest"); old != nil {
				all = append(all, digest.Digest(old.Value))
			} else {
				all = append(all, "")
			}
			continue
		}
		_, d, _ := strings.Cut(n.Value, "@")
		all = append(all, digest.Digest(d))
	}
	return all, nil
}

func isEnvFile(file string) bool {
	return path.Ext(file) == ".env" || path.Base(file) == ".env"
}

var envLine = regexp.MustCompile(`^(\s*(?:export\s+)?[A-Za-z_][A-Za-z0-9_]*=["']?)([^\s"'#]+)(.*)$`)

// envFile sets the digests in an env file, unless d is empty, and gives those that were there.
func envFile(data []byte, repository string, d digest.Digest) ([]byte, []digest.Digest) {
	var out bytes.Buffer
	var found []digest.Digest
	for text := range bytes.Lines(data) {
		m := envLine.FindSubmatch(bytes.TrimRight(text, "\r\n"))
		if m == nil || repositoryIn(string(m[2])) != repository {
			out.Write(text)
			continue
		}
		_, old, _ := strings.Cut(string(m[2]), "@")
		found = append(found, digest.Digest(old))
		if d == "" {
			out.Write(text)
			continue
		}
		out.Write(m[1])
		out.WriteString(repository + "@" + d.String())
		out.Write(m[3])
		out.Write(text[len(bytes.TrimRight(text, "\r\n")):])
	}
	return out.Bytes(), found
}

// repositoryIn is a reference without tag and digest.
func repositoryIn(reference string) string {
	name, _, _ := strings.Cut(reference, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name
}

// parseDocuments reads all documents of a file as the content of one node.
func parseDocuments(file string, data []byte) (*yaml.Node, error) {
	root := &yaml.Node{Kind: yaml.SequenceNode}
	for d := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return root, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		root.Content = append(root.Content, &doc)
	}
}

// imagePlaces finds where images of a repository stand: the indexes that lead there.
func imagePlaces(n *yaml.Node, at []int, repository string) [][]int {
	var all [][]int
	for i, c := range n.Content {
		here := append(slices.Clone(at), i)
		named := n.Kind == yaml.MappingNode && i%2 == 1
		switch {
		case named && n.Content[i-1].Value == "image" && c.Kind == yaml.ScalarNode && repositoryIn(c.Value) == repository:
			all = append(all, here)
		case named && n.Content[i-1].Value == "images" && c.Kind == yaml.SequenceNode && isKustomization(n):
			all = append(all, kustomized(c, here, repository)...)
		default:
			all = append(all, imagePlaces(c, here, repository)...)
		}
	}
	return all
}

// isKustomization says whether a map is one, which has images of another shape
// than others may have.
func isKustomization(n *yaml.Node) bool {
	kind := value(n, "kind")
	return kind == nil || kind.Value == "Kustomization" || kind.Value == "Component"
}

func kustomized(list *yaml.Node, at []int, repository string) [][]int {
	var all [][]int
	for i, im := range list.Content {
		name := value(im, "newName")
		if name == nil {
			name = value(im, "name")
		}
		if name != nil && name.Value == repository {
			all = append(all, append(slices.Clone(at), i))
		}
	}
	return all
}

// nodeAt is nil where indexes lead nowhere.
func nodeAt(n *yaml.Node, at []int) *yaml.Node {
	for _, i := range at {
		if i >= len(n.Content) {
			return nil
		}
		n = n.Content[i]
	}
	return n
}

// setPlace changes one place, the first way that leaves everything else as it was.
func setPlace(file string, data []byte, at []int, repository string, d digest.Digest) ([]byte, error) {
	root, err := parseDocuments(file, data)
	if err != nil {
		return nil, err
	}
	n := nodeAt(root, at)
	text := text{data}
	var ways []splice
	if n.Kind == yaml.MappingNode {
		ways = append(text.replace(n, d.String()), text.insert(n, d.String())...)
	} else {
		want := repository + "@" + d.String()
		if n.Value == want {
			return data, nil
		}
		ways = text.rewrite(n, want)
	}
	for _, s := range ways {
		edited := s.apply(data)
		after, err := parseDocuments(file, edited)
		if err == nil && !aliased(root, n) && onlyPlaceDiffers(root, after, at, repository, d) {
			return edited, nil
		}
	}
	return nil, fmt.Errorf("%s:%d: the image cannot be written without changing more (is it shared through an anchor, or written over several lines?); give it a line of its own", file, n.Line)
}

func onlyPlaceDiffers(before, after *yaml.Node, at []int, repository string, d digest.Digest) bool {
	if len(after.Content) != len(before.Content) {
		return false
	}
	a, b := nodeAt(before, at), nodeAt(after, at)
	if b == nil || b.Kind != a.Kind {
		return false
	}
	c := comparison{skip: map[*yaml.Node]bool{}}
	if b.Kind == yaml.MappingNode {
		got := value(b, "digest")
		if got == nil || got.Value != d.String() {
			return false
		}
		c.skip[a], c.skip[b] = true, true
		return c.same(before, after)
	}
	if b.Value != repository+"@"+d.String() || b.ShortTag() != "!!str" || a.Anchor != b.Anchor {
		return false
	}
	old := *a
	a.Value, a.Tag = b.Value, b.Tag
	same := c.same(before, after)
	*a = old
	return same
}
