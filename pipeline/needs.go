package pipeline

import (
	"maps"
	"slices"
	"strings"
)

func (x *expansion) needsOfBuild(w written) {
	matrix := x.tasks[w.task].Matrix
	for _, n := range w.image.value.needs {
		if !x.d.spend(w.node) {
			return
		}
		if x.p.byName[n.value] == nil {
			continue // check has reported it
		}
		found := x.builtFor(n.value, matrix)
		if len(found) == 0 {
			d := w.d.at("images", w.image.name, "needs")
			d.report(n.at, "%s needs %s, and no %s has the same values of the matrix keys they share", x.tasks[w.task].ID, n.value, n.value)
		}
		for _, i := range found {
			x.need(w.task, i)
		}
	}
	contexts := x.tasks[w.task].Build.AdditionalContexts
	for _, name := range slices.Sorted(maps.Keys(contexts)) {
		ref, ours := cutImage(contexts[name])
		if !ours {
			continue
		}
		at := w.node.get("additional_contexts").orAt(w.node).at
		if v := w.node.get("additional_contexts").get(name); v != nil {
			at = v.at
		}
		d := w.d.under("additional_contexts").under(name)
		if ref.path != "" {
			d.report(at, "%q: a context is a whole image; write image:%s", contexts[name], ref.name)
			continue
		}
		if i, ok := x.theBuild(d, at, ref, matrix); ok && i == w.task {
			d.report(at, "%s would be built from itself", x.tasks[i].ID)
		} else if ok {
			x.need(w.task, i)
			contexts[name] = imagePrefix + x.tasks[i].ID
		}
	}
}

// builtFor are the builds of an image that go with matrix: their values agree
// in the keys that both have.
func (x *expansion) builtFor(name string, matrix map[string]string) []int {
	var found []int
	for _, i := range x.builds[name] {
		if !x.d.spend(x.p.byName[name].value.build) {
			return nil
		}
		if agrees(matrix, x.tasks[i].Matrix) {
			found = append(found, i)
		}
	}
	return found
}

// theBuild is the one build that ref means beside matrix. It reports none and several.
func (x *expansion) theBuild(d *decoder, at position, ref imageRef, matrix map[string]string) (int, bool) {
	if !x.p.knownImage(d, at, ref) {
		return 0, false
	}
	wanted := maps.Clone(matrix) // what the brackets say goes before the values here
	if wanted == nil {
		wanted = map[string]string{}
	}
	maps.Copy(wanted, ref.matrix)
	var found []int
	for _, i := range x.builtFor(ref.name, wanted) {
		if contains(x.tasks[i].Matrix, ref.matrix) {
			found = append(found, i)
		}
	}
	if len(found) == 1 {
		return found[0], true
	}
	if len(x.builds[ref.name]) == 0 || x.p.byName[ref.name].lenient {
		return 0, false // reported where it is written
	}
	all := found
	if len(all) == 0 {
		all = x.builds[ref.name]
	}
	ids := make([]string, len(all))
	for i, task := range all {
		ids[i] = imagePrefix + x.tasks[task].ID
	}
	const most = 8
	if len(ids) > most {
		ids = append(ids[:most], "…")
	}
	if len(found) == 0 {
		d.report(at, "no image %s%s goes with %s; there are %s", ref.name, variant(ref.matrix), orPlain(variant(matrix)), strings.Join(ids, ", "))
	} else {
		d.report(at, "image:%s means several images here; write one of %s", ref.name, strings.Join(ids, ", "))
	}
	return 0, false
}

func orPlain(variant string) string {
	if variant == "" {
		return "an image without a matrix"
	}
	return variant
}

// contains says whether all of part is in matrix.
func contains(matrix, part map[string]string) bool {
	for k, v := range part {
		if w, ok := matrix[k]; !ok || w != v {
			return false
		}
	}
	return true
}

func (x *expansion) needsOfTest(w written) {
	t := &x.tasks[w.task]
	id := w.image.name + variant(t.Matrix)
	x.need(w.task, x.index[id])
	for _, n := range w.test.needs {
		if !x.d.spend(w.node) {
			return
		}
		if i, ok := x.index[id+"/"+n.value]; ok && i != w.task {
			x.need(w.task, i)
		} else if n.value != "" {
			x.noSuchTest(w, n)
		}
	}
	x.mounts(w.task, w.d, w.node, t.Test.Volumes)
	mountedTwice(w.d, w.node, t.Test.Volumes, t.Test.Tmpfs)
	seen := map[string]bool{}
	services, d := x.servicesOf(w)
	for _, s := range services {
		if !x.d.spend(w.node) {
			return
		}
		if _, known := x.p.serviceAt[s.value]; !known && s.value != "" {
			d.report(s.at, "no service %q in this pipeline%s", s.value, suggestion(s.value, names(x.p.services)))
		}
		if key, ok := x.service(w, s.value, seen); ok && !slices.Contains(t.Test.Services, key) {
			t.Test.Services = append(t.Test.Services, key)
		}
	}
}

// servicesOf are the services of a test, and the decoder of where they stand:
// its own list, or the image's where it has none.
func (x *expansion) servicesOf(w written) ([]placed[string], *decoder) {
	own := w.d.under("services")
	if list := w.node.get("services"); list != nil {
		if w.test.Network == NetworkNone && len(w.test.services) > 0 {
			own.report(list.at, "a test with network: none reaches no service; leave network out")
		}
		return w.test.services, own
	}
	if w.image.value.services == nil || w.test.Network == NetworkNone {
		return nil, own
	}
	shared := w.d.at("images", w.image.name, "services")
	return serviceNames.decode(shared, w.image.value.services), shared
}

func (x *expansion) noSuchTest(w written, n placed[string]) {
	d := w.d.under("needs")
	known := names(w.image.value.tests)
	switch {
	case n.value == w.test.Name:
		d.report(n.at, "%s needs itself", n.value)
	case x.p.byName[n.value] != nil && nearest(n.value, known) == "":
		d.report(n.at, "%s is an image; a test needs other tests of its image, and its image is always built before", n.value)
	default:
		d.report(n.at, "no test %q in image %s%s", n.value, w.image.name, suggestion(n.value, known))
	}
}
