package pipeline

import (
	"maps"
	"slices"
	"strings"
)

// seed is a named volume of the pipeline, its source resolved.
type seed struct {
	VolumeSeed
	build int // task that makes its source; -1 for none
	ref   imageRef
	at    position
}

func (x *expansion) readSeeds() {
	for _, v := range x.p.volumes {
		s := seed{VolumeSeed: VolumeSeed{From: v.value.from.value}, build: -1, at: v.value.from.at}
		s.ref, _ = cutImage(s.From)
		x.seeds[v.name] = s
	}
}

// mounts checks the volumes of a test or service (written in n) and makes task
// wait for the image that a named one is filled from.
func (x *expansion) mounts(task int, d *decoder, n *node, mounts []Volume) {
	x.knownVolumes(d, n, mounts)
	for _, v := range mounts {
		s, known := x.seeds[v.Source]
		if !known || s.ref.name == "" {
			continue
		}
		if build, ok := x.theBuild(x.d.at("volumes", v.Source, "from"), s.at, s.ref, nil); ok {
			x.need(task, build)
			s.From = imagePrefix + x.tasks[build].ID + ":" + s.ref.path
			x.seeds[v.Source] = s
		}
	}
}

// knownVolumes reports named volumes that the pipeline does not have.
func (x *expansion) knownVolumes(d *decoder, n *node, mounts []Volume) {
	for i, v := range mounts {
		if v.Source == "" || strings.HasPrefix(v.Source, "./") {
			continue
		}
		if _, known := x.seeds[v.Source]; known {
			continue
		}
		if !d.spend(n) {
			return
		}
		at := n.at
		if written := n.get("volumes"); written != nil && i < len(written.items) {
			at = written.items[i].at
		}
		d.under("volumes").report(at, "no volume %q in this pipeline%s", v.Source, suggestion(v.Source, names(x.p.volumes)))
	}
}

// usedService is a service with the matrix values of the tests that share it.
type usedService struct {
	Service
	written *node
	depends []string // names, in a fixed order
}

// service makes task wait for what the service of that name stands on, and for
// what the services it depends on do. Its key in the plan carries the matrix
// values that its definition uses, so that two tests with other values get other services.
func (x *expansion) service(w written, name string, seen map[string]bool) (key string, ok bool) {
	i, known := x.p.serviceAt[name]
	if !known || !x.d.spend(x.p.services[i].value) {
		return "", false // reported where it is named
	}
	matrix := x.tasks[w.task].Matrix
	key = x.serviceKey(name, matrix)
	if seen[key] {
		return key, true
	}
	seen[key] = true
	d := w.d.at("services", name)
	s := x.services[key]
	if s == nil {
		s = x.readService(d, x.p.services[i], matrix)
		x.services[key] = s
	}
	x.mounts(w.task, d, s.written, s.Volumes)
	if ref, ours := cutImage(s.Image); ours {
		under := d.under("image")
		if build, found := x.theBuild(under, s.written.get("image").orAt(s.written).at, ref, matrix); found {
			x.need(w.task, build)
			s.Image = imagePrefix + x.tasks[build].ID
		}
	}
	for _, other := range s.depends {
		x.service(w, other, seen)
	}
	return key, true
}

func (x *expansion) readService(d *decoder, e entry[*node], matrix map[string]string) *usedService {
	s := &usedService{Service: serviceCodec.decode(d, e.value), written: e.value}
	s.Name = e.name
	mountedTwice(d, e.value, s.Volumes, s.Tmpfs)
	s.depends = slices.Sorted(maps.Keys(s.DependsOn))
	keys := make(map[string]string, len(s.depends))
	for _, other := range s.depends {
		keys[x.serviceKey(other, matrix)] = s.DependsOn[other]
	}
	if len(keys) > 0 {
		s.DependsOn = keys
	}
	return s
}

func (x *expansion) serviceKey(name string, matrix map[string]string) string {
	used := map[string]string{}
	for k := range x.p.uses[x.p.serviceAt[name]] {
		if v, has := matrix[k]; has {
			used[k] = v
		}
	}
	return name + variant(used)
}

// unusedServices checks the services that no test names, once, while parsing.
func (x *expansion) unusedServices() {
	used := map[string]bool{}
	for _, s := range x.services {
		used[s.Name] = true
	}
	for _, e := range x.p.services {
		if !used[e.name] {
			d := x.d.at("services", e.name)
			d.scope = scope{lenient: true}
			s := serviceCodec.decode(d, e.value)
			x.knownVolumes(d, e.value, s.Volumes)
			mountedTwice(d, e.value, s.Volumes, s.Tmpfs)
			if ref, ours := cutImage(s.Image); ours {
				x.p.knownImage(d.under("image"), e.value.get("image").at, ref)
			}
		}
	}
}

// findUses finds the matrix keys that each service's definition, with those it
// depends on, can see a value of.
func (p *Pipeline) findUses(d *decoder) {
	own := make([]map[string]bool, len(p.services))
	edges := make([][]int, len(p.services))
	for i, e := range p.services {
		own[i] = p.ownUses(e.value)
		for _, name := range dependencyNames(e.value) {
			if other, known := p.serviceAt[name]; known {
				edges[i] = append(edges[i], other)
			}
		}
	}
	p.uses = make([]map[string]bool, len(p.services))
	for i := range p.services {
		keys, seen := map[string]bool{}, map[int]bool{}
		var visit func(j int)
		visit = func(j int) {
			if seen[j] || !d.spend(p.services[j].value) {
				return
			}
			seen[j] = true
			maps.Copy(keys, own[j])
			for _, other := range edges[j] {
				visit(other)
			}
		}
		visit(i)
		p.uses[i] = keys
	}
}

// ownUses are the matrix keys that n names, and those of the image it runs.
func (p *Pipeline) ownUses(n *node) map[string]bool {
	keys := map[string]bool{}
	for term := range n.expressions() {
		if match := termRegexp.FindStringSubmatch(term); match != nil && match[1] == "matrix" {
			keys[match[2]] = true
		}
	}
	source := n.get("image")
	if source == nil {
		return keys
	}
	ref, ours := cutImage(source.text)
	if img := p.byName[ref.name]; ours && img != nil {
		for _, matrix := range img.variants {
			for k := range matrix {
				keys[k] = true
			}
		}
	}
	return keys
}

// dependencyNames are the services n names under depends_on, as far as they can be read.
func dependencyNames(n *node) []string {
	depends := n.get("depends_on")
	if depends == nil {
		return nil
	}
	var out []string
	for _, item := range depends.items {
		out = append(out, item.text)
	}
	for _, p := range depends.pairs {
		out = append(out, p.key)
	}
	return out
}
