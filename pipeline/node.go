package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"gopkg.in/yaml.v3"
)

// Limits on one file. A real pipeline stays far below each of them.
const (
	maxSize   = 1 << 20 // bytes
	maxDepth  = 64      // levels, aliases followed
	maxMerged = 100_000 // pairs that merge keys copy
	maxValues = 300_000 // values read, each alias and matrix combination counted again
)

type nodeKind int

const (
	scalarNode nodeKind = iota
	listNode
	mapNode
)

// node is a value of a YAML file with its place, aliases and merge keys
// resolved. An anchored value is one node, however often it is used.
type node struct {
	kind   nodeKind
	at     position
	tag    string // of a scalar: "!!str", "!!int", "!!float", "!!bool", "!!null"
	text   string // of a scalar, as it is written: 3.10 stays 3.10
	items  []*node
	pairs  []pair
	height int // levels below
}

type pair struct {
	key   string
	at    position
	value *node
}

// get is the value under key, or nil.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for _, p := range n.pairs {
		if p.key == key {
			return p.value
		}
	}
	return nil
}

func (n *node) null() bool { return n.kind == scalarNode && n.tag == "!!null" }

// load reads data as one YAML document. It returns nil after it reported why not.
func load(data []byte, errs *problems) *node {
	if len(data) > maxSize {
		errs.add(position{1, 1}, "the file has %d bytes; more than %d is refused, move what is not about the pipeline elsewhere", len(data), maxSize)
		return nil
	}
	if at, what := unreadable(data); what != "" {
		errs.add(at, "%s; save the file as UTF-8 text", what)
		return nil
	}
	document, err := decodeYAML(data)
	if errors.Is(err, io.EOF) || (err == nil && len(document.Content) == 0) {
		errs.add(position{1, 1}, "the file is empty; `slipway init` writes a first one")
		return nil
	}
	var second *secondDocument
	if errors.As(err, &second) {
		errs.add(second.at, "a second YAML document begins here; one file holds one document")
		return nil
	}
	if err != nil {
		syntaxError(err, data, errs)
		return nil
	}
	r := resolver{errs: errs, done: map[*yaml.Node]*node{}, open: map[*yaml.Node]bool{}, left: maxMerged}
	n := r.resolve(document.Content[0], 0)
	if len(errs.list) > 0 {
		return nil
	}
	return n
}

type secondDocument struct{ at position }

func (*secondDocument) Error() string { return "a second YAML document" }

// decodeYAML contains yaml.v3's panics: it re-panics on anything that it does
// not know as its own error, and a file from a stranger must not end the server.
func decodeYAML(data []byte) (document *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: line 1: cannot be read (%v)", r)
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	document = new(yaml.Node)
	if err := decoder.Decode(document); err != nil {
		return nil, err
	}
	var next yaml.Node
	if err := decoder.Decode(&next); errors.Is(err, io.EOF) {
		return document, nil
	} else if err != nil {
		return nil, err
	}
	return nil, &secondDocument{position{next.Line, next.Column}}
}
