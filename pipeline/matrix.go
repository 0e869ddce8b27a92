package pipeline

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// maxVariants is GitHub's limit for one matrix.
const maxVariants = 256

// matrixSpec is `matrix` as written: axes in file order, then what include adds
// and exclude takes away, in GitHub's meaning.
type matrixSpec struct {
	at      position
	axes    []axis
	include []entry[map[string]string]
	exclude []entry[map[string]string]
	wrong   bool // reported: what it comes to is not known
}

type axis struct {
	name   string
	values []string
}

const matrixKeyPattern = `^[A-Za-z_][A-Za-z0-9_-]*$`

var matrixKey = regexp.MustCompile(matrixKeyPattern)

// matrixValue is taken as it is written (3.10 stays 3.10). It names tasks, so
// the characters that part a task's name cannot be in it.
var matrixValue = scalar(shape{kind: "either", says: "matrix value", either: []*shape{
	{kind: "string", pattern: matrixValuePattern}, {kind: "number"}, {kind: "boolean"},
}}, isAny, func(text string) (string, string) {
	if !matrixValueRegexp.MatchString(text) {
		return "", "it names tasks: write 1 to 128 characters, without [ ] , and line ends"
	}
	return text, ""
})

const matrixValuePattern = `^[^\[\],\x00-\x1f\x7f]{1,128}$`

var matrixValueRegexp = regexp.MustCompile(matrixValuePattern)

// combinationCodec is one value for each of some matrix keys.
var combinationCodec = codec[entry[map[string]string]]{
	&shape{kind: "map", items: matrixValue.shape, keys: matrixKeyPattern, atLeast: 1, says: "map from matrix keys to values"},
	func(d *decoder, n *node) entry[map[string]string] {
		e := entry[map[string]string]{at: n.at, value: map[string]string{}}
		if n.kind != mapNode || len(n.pairs) == 0 {
			d.report(n.at, "%s where a map from matrix keys to values belongs", n.what())
			return e
		}
		for _, p := range n.pairs {
			if !matrixKey.MatchString(p.key) {
				d.report(p.at, "%q cannot be a matrix key; use letters, digits, _ and -", shorten(p.key))
				continue
			}
			e.value[p.key] = matrixValue.decode(d.under(p.key), p.value)
		}
		return e
	},
}

// combinations is the list under include or exclude.
var combinations = list(combinationCodec, 0)

var matrixCodec = codec[*matrixSpec]{
	&shape{
		kind: "object", says: "matrix", def: "matrix", doc: "Every combination of the values is an image of its own.",
		keys: matrixKeyPattern, items: list(matrixValue, 1).shape,
		fields: []fieldShape{
			{key: "include", doc: "Combinations to extend or add, in GitHub's meaning.", shape: combinations.shape},
			{key: "exclude", doc: "Combinations to leave out; a part of a combination leaves out all that have it.", shape: combinations.shape},
		},
	},
	func(d *decoder, n *node) *matrixSpec {
		if n.kind != mapNode || len(n.pairs) == 0 {
			d.report(n.at, "%s where a map from names to lists of values belongs", n.what())
			return nil
		}
		before := len(d.errs.list)
		m := &matrixSpec{at: n.at}
		for _, p := range n.pairs {
			switch under := d.under(p.key); {
			case p.key == "include":
				m.include = combinations.decode(under, p.value)
			case p.key == "exclude":
				m.exclude = combinations.decode(under, p.value)
			case strings.HasPrefix(p.key, "x-"):
			case !matrixKey.MatchString(p.key):
				d.report(p.at, "%q cannot be a matrix key; use letters, digits, _ and -", shorten(p.key))
			default:
				m.axes = append(m.axes, axis{p.key, under.axisValues(p.value)})
			}
		}
		m.wrong = len(d.errs.list) > before
		return m
	},
}

func (d *decoder) axisValues(n *node) []string {
	values := list(matrixValue, 1).decode(d, n)
	seen := map[string]bool{}
	for i, v := range values {
		if seen[v] && v != "" {
			d.report(n.items[i].at, "%q is given twice; keep one", v)
		}
		seen[v] = true
	}
	return values
}

// variants are the combinations of m in order; one nil map without a matrix.
func (m *matrixSpec) variants(d *decoder) []map[string]string {
	if m == nil {
		return []map[string]string{nil}
	}
	if m.wrong {
		return nil
	}
	count := 1
	for _, a := range m.axes {
		if count *= len(a.values); count > maxVariants {
			d.report(m.at, "more than %d combinations; split the image", maxVariants)
			return nil
		}
	}
	m.checkExclude(d)
	var out []map[string]string
	if len(m.axes) > 0 {
		out = m.excluded(m.product())
	}
	base := make([]map[string]string, len(out)) // what include may not overwrite
	for i := range out {
		base[i] = maps.Clone(out[i])
	}
	for _, inc := range m.include {
		fitted := false
		for i := range base {
			if agrees(base[i], inc.value) {
				maps.Copy(out[i], inc.value)
				fitted = true
			}
		}
		if !fitted {
			out = append(out, maps.Clone(inc.value))
		}
	}
	return m.checkVariants(d, out)
}

func (m *matrixSpec) product() []map[string]string {
	out := []map[string]string{{}}
	for _, a := range m.axes {
		next := make([]map[string]string, 0, len(out)*len(a.values))
		for _, combination := range out {
			for _, v := range a.values {
				c := maps.Clone(combination)
				c[a.name] = v
				next = append(next, c)
			}
		}
		out = next
	}
	return out
}

func (m *matrixSpec) excluded(all []map[string]string) []map[string]string {
	return slices.DeleteFunc(all, func(c map[string]string) bool {
		return slices.ContainsFunc(m.exclude, func(ex entry[map[string]string]) bool {
			for k, v := range ex.value {
				if c[k] != v {
					return false
				}
			}
			return true
		})
	})
}

// agrees says whether no shared key has another value.
func agrees(a, b map[string]string) bool {
	for k, v := range a {
		if w, shared := b[k]; shared && v != w {
			return false
		}
	}
	return true
}

// checkExclude reports what can never match: it is a slip, and would silently
// test what was meant to be left out.
func (m *matrixSpec) checkExclude(d *decoder) {
	var names []string
	for _, a := range m.axes {
		names = append(names, a.name)
	}
	for _, ex := range m.exclude {
		for _, k := range slices.Sorted(maps.Keys(ex.value)) {
			i := slices.Index(names, k)
			if i < 0 {
				d.report(ex.at, "exclude names %q, which is no list of this matrix%s", k, suggestion(k, names))
			} else if v := ex.value[k]; v != "" && !slices.Contains(m.axes[i].values, v) {
				d.report(ex.at, "%s has no value %q to exclude%s", k, v, suggestion(v, m.axes[i].values))
			}
		}
	}
}

func (m *matrixSpec) checkVariants(d *decoder, all []map[string]string) []map[string]string {
	switch {
	case len(all) == 0:
		d.report(m.at, "no combination is left; exclude less, or drop the matrix")
	case len(all) > maxVariants:
		d.report(m.at, "more than %d combinations; split the image", maxVariants)
		return nil
	}
	seen := map[string]bool{}
	for _, c := range all {
		name := variant(c)
		if seen[name] {
			d.report(m.at, "include makes the combination %s twice", name)
		}
		seen[name] = true
	}
	return all
}

// variant is "[a=1,b=2]" in the order of the keys, and "" without a matrix.
func variant(matrix map[string]string) string {
	if len(matrix) == 0 {
		return ""
	}
	parts := make([]string, 0, len(matrix))
	for _, k := range slices.Sorted(maps.Keys(matrix)) {
		parts = append(parts, k+"="+matrix[k])
	}
	return "[" + strings.Join(parts, ",") + "]"
}
