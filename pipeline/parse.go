package pipeline

import "bytes"

// Pipeline is a checked .ci.yml. It is a value: nothing changes it after Parse,
// and several goroutines may expand it.
type Pipeline struct {
	Name         string   // of the file, as errors name it
	When         When     // the pipeline's own; each image may narrow it
	Environments []string // paths of environment files, as written
	source       []byte   // for the places of errors
	images       []*image
	services     []entry[*node] // of serviceCodec
	volumes      []entry[volumeFile]

	byName    map[string]*image
	serviceAt map[string]int    // index in services
	uses      []map[string]bool // by service: the matrix keys its definition uses
}

// image is one entry under images.
type image struct {
	entry[imageFile]
	variants []map[string]string // one nil map without a matrix
	lenient  bool                // the matrix is wrong: its values are not known
}

// Parse reads a .ci.yml. name is the file's name for errors. The error is an
// Errors with everything that is wrong, including what only shows when the
// matrix is expanded; values that depend on the event are checked by Expand.
func Parse(name string, data []byte) (*Pipeline, error) {
	errs := newProblems(name, data)
	root := load(data, errs)
	if root == nil {
		return nil, errs.err()
	}
	left := maxValues
	d := &decoder{errs: errs, left: &left, scope: scope{never: noExpression}}
	f := fileCodec.decode(d, root)
	p := &Pipeline{
		Name: name, When: f.when, source: bytes.Clone(data), services: f.services, volumes: f.volumes,
		byName: map[string]*image{}, serviceAt: map[string]int{},
	}
	for _, e := range f.environments {
		p.Environments = append(p.Environments, e.value)
	}
	for _, e := range f.images {
		before := len(errs.list)
		img := &image{entry: e}
		img.variants = e.value.matrix.variants(d.under("images").under(e.name).under("matrix"))
		if len(errs.list) > before || len(img.variants) == 0 {
			img.variants, img.lenient = []map[string]string{nil}, true
		}
		p.images = append(p.images, img)
		p.byName[img.name] = img
	}
	for i, e := range p.services {
		p.serviceAt[e.name] = i
	}
	p.check(d, f)
	p.findUses(d)
	x := newExpansion(p, nil, errs, left)
	x.run()
	x.unusedServices()
	if err := errs.err(); err != nil {
		return nil, err
	}
	return p, nil
}

func names[V any](entries []entry[V]) []string {
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.name
	}
	return out
}

func (p *Pipeline) imageNames() []string {
	out := make([]string, len(p.images))
	for i, img := range p.images {
		out[i] = img.name
	}
	return out
}
