package pipeline

import (
	"slices"
	"strings"
)

// check reports names that lead nowhere, where no value of a matrix can change that.
func (p *Pipeline) check(d *decoder, f file) {
	for _, img := range p.images {
		under := d.under("images").under(img.name).under("needs")
		for _, n := range img.value.needs {
			switch {
			case d.errs.full:
				return
			case n.value == "":
			case n.value == img.name:
				under.report(n.at, "%s needs itself", img.name)
			case p.byName[n.value] == nil:
				under.report(n.at, "no image %q in this pipeline%s", n.value, suggestion(n.value, p.imageNames()))
			}
		}
	}
	p.checkServices(d.under("services"))
	for _, v := range p.volumes {
		if ref, ours := cutImage(v.value.from.value); ours {
			p.knownImage(d.under("volumes").under(v.name).under("from"), v.value.from.at, ref)
		}
	}
	seen := map[string]bool{}
	for _, e := range f.environments {
		if e.value != "" && seen[e.value] {
			d.under("environments").report(e.at, "%s is given twice; keep one", e.value)
		}
		seen[e.value] = true
	}
}

// knownImage reports an image that the pipeline does not have.
func (p *Pipeline) knownImage(d *decoder, at position, ref imageRef) bool {
	if p.byName[ref.name] != nil {
		return true
	}
	d.report(at, "no image %q in this pipeline%s", ref.name, suggestion(ref.name, p.imageNames()))
	return false
}

func (p *Pipeline) checkServices(d *decoder) {
	graph := make([][]int, len(p.services))
	for i, e := range p.services {
		depends := e.value.get("depends_on")
		for _, name := range dependencyNames(e.value) {
			other, known := p.serviceAt[name]
			if !known && d.errs.full {
				return
			} else if !known {
				d.under(e.name).under("depends_on").report(depends.placeOf(name), "no service %q in this pipeline%s", name, suggestion(name, names(p.services)))
				continue
			}
			graph[i] = append(graph[i], other)
		}
	}
	for _, cycle := range cycles(graph) {
		d.report(p.services[cycle[0]].at, "a cycle, so none can start first: %s", round(cycle, func(i int) string { return p.services[i].name }))
	}
}

// placeOf is where name stands in a list, or as a key.
func (n *node) placeOf(name string) position {
	for _, item := range n.items {
		if item.text == name {
			return item.at
		}
	}
	for _, p := range n.pairs {
		if p.key == name {
			return p.at
		}
	}
	return n.at
}

// checkCycles reports tasks that wait for each other.
func (x *expansion) checkCycles() {
	graph := make([][]int, len(x.tasks))
	for i, t := range x.tasks {
		graph[i] = t.Needs
	}
	for _, cycle := range cycles(graph) {
		t := x.tasks[cycle[0]]
		at := x.p.byName[t.Image].at
		if t.Kind == TestTask {
			for _, e := range x.p.byName[t.Image].value.tests {
				if e.name == t.Test.Name {
					at = e.at
				}
			}
		}
		x.d.errs.add(at, "a cycle, so none can run first: %s", round(cycle, func(i int) string { return x.tasks[i].ID }))
	}
}

// round writes a cycle back to its start: "api → base → api".
func round(cycle []int, name func(int) string) string {
	var parts []string
	for _, i := range cycle {
		parts = append(parts, name(i))
	}
	return strings.Join(append(parts, parts[0]), " → ")
}

// enoughCycles are as many as anyone mends before looking again.
const enoughCycles = 10

// cycles finds cycles in a graph of edges by index, each beginning with its
// lowest index.
func cycles(graph [][]int) [][]int {
	const unseen, open, done = 0, 1, 2
	state := make([]int, len(graph))
	var out [][]int
	var path []int
	var visit func(i int)
	visit = func(i int) {
		state[i] = open
		path = append(path, i)
		for _, next := range graph[i] {
			switch state[next] {
			case unseen:
				visit(next)
			case open:
				if len(out) == enoughCycles {
					continue
				}
				out = append(out, fromLowest(path[slices.Index(path, next):]))
			}
		}
		path = path[:len(path)-1]
		state[i] = done
	}
	for i := range graph {
		if state[i] == unseen {
			visit(i)
		}
	}
	return out
}

func fromLowest(cycle []int) []int {
	at := slices.Index(cycle, slices.Min(cycle))
	return append(slices.Clone(cycle[at:]), cycle[:at]...)
}
