package pipeline

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// shape describes the values a codec takes. The JSON Schema and the reference
// in docs/ are written from it, the codec's decode obeys it: they cannot differ.
type shape struct {
	kind       string // "string", "integer", "number", "boolean", "null", "list", "map", "object", "either", "any"
	says       string // in the reference: "duration", "path"
	def        string // name of an object's definition
	doc        string
	pattern    string   // of a string
	enum       []string // of a string
	low, high  float64  // of a number; high 0 is no limit
	atLeast    int      // items of a list or map
	fields     []fieldShape
	items      *shape   // of a list or map
	keys       string   // pattern of a map's keys
	either     []*shape // of "either"
	one        []string // of an object: exactly one of these keys
	extensions bool     // of a map: x-* keys are left alone
	expression bool     // a scalar that may hold ${{ }}
}

type fieldShape struct {
	key, doc string
	required bool
	shape    *shape
}

// codec reads one type of value. decode reports what is wrong to d and then
// returns the zero value.
type codec[V any] struct {
	shape  *shape
	decode func(d *decoder, n *node) V
}

// decoder carries what is known while a value is read.
type decoder struct {
	errs  *problems
	scope scope
	left  *int // values that may still be read, over all decoders of a file
	key   string
	up    *decoder // of what holds key; nil at the top
}

// report says what is wrong at n, led by the keys that lead there.
func (d *decoder) report(at position, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if path := d.path(); path != "" {
		message = path + ": " + message
	}
	d.errs.add(at, "%s", message)
}

// spend counts a value read (long text as several), or a name looked up, and says whether to go on:
// not when the file is made to be endless, or has more problems than are shown.
func (d *decoder) spend(n *node) bool {
	if d.errs.full {
		return false
	}
	if *d.left <= 0 {
		return false
	}
	if *d.left -= 1 + len(n.text)/64; *d.left <= 0 {
		d.errs.add(n.at, "more than %d values when aliases and matrices are expanded; split the pipeline", maxValues)
	}
	return *d.left > 0
}

func (d *decoder) under(key string) *decoder {
	deeper := *d
	deeper.key, deeper.up = key, d
	return &deeper
}

// at is a decoder with d's scope for the place that keys lead to from the top.
func (d *decoder) at(keys ...string) *decoder {
	top := *d
	top.key, top.up = "", nil
	there := &top
	for _, key := range keys {
		there = there.under(key)
	}
	return there
}

// path is the keys that lead here, "images.api.build".
func (d *decoder) path() string {
	var keys []string
	for ; d.up != nil; d = d.up {
		keys = append(keys, d.key)
	}
	slices.Reverse(keys)
	return strings.Join(keys, ".")
}

// field is one key of an object of type T.
type field[T any] struct {
	fieldShape
	decode func(d *decoder, n *node, into *T)
}

// at makes a field from the codec of its value and the place of it in T.
func at[T, V any](key string, c codec[V], doc string, of func(*T) *V) field[T] {
	return field[T]{
		fieldShape: fieldShape{key: key, doc: doc, shape: c.shape},
		decode:     func(d *decoder, n *node, into *T) { *of(into) = c.decode(d, n) },
	}
}

// must marks a field that cannot be left out.
func (f field[T]) must() field[T] {
	f.required = true
	return f
}

// object is a map with known keys. foreign answers keys that other tools have.
func object[T any](def, doc string, start func() T, foreign map[string]string, fields ...field[T]) codec[T] {
	s := &shape{kind: "object", says: def, def: def, doc: doc}
	byKey := make(map[string]field[T], len(fields))
	for _, f := range fields {
		s.fields = append(s.fields, f.fieldShape)
		byKey[f.key] = f
	}
	known := slices.Collect(maps.Keys(byKey))
	return codec[T]{s, func(d *decoder, n *node) T {
		var zero, v T
		if start != nil {
			v = start()
		}
		if !d.spend(n) {
			return zero
		}
		if n.kind != mapNode {
			d.report(n.at, "%s where a map with the keys of %s belongs%s", n.what(), def, suggestion("", known))
			return zero
		}
		has := map[string]bool{}
		for _, p := range n.pairs {
			f, ok := byKey[p.key]
			switch {
			case ok:
				has[p.key] = true
				f.decode(d.under(p.key), p.value, &v)
			case !strings.HasPrefix(p.key, "x-"):
				d.report(p.at, "unknown key %q%s", p.key, advice(p.key, known, foreign))
			}
		}
		for _, f := range fields {
			if f.required && !has[f.key] {
				d.report(n.at, "%q is missing: %s", f.key, f.doc)
			}
		}
		return v
	}}
}

// choice makes an object one of whose keys is given, and no second.
func choice[T any](c codec[T]) codec[T] {
	s := *c.shape
	for _, f := range s.fields {
		s.one = append(s.one, f.key)
	}
	return codec[T]{&s, func(d *decoder, n *node) T {
		v := c.decode(d, n)
		if n.kind != mapNode {
			return v
		}
		var has []string
		for _, key := range s.one {
			if n.get(key) != nil {
				has = append(has, key)
			}
		}
		switch len(has) {
		case 0:
			d.report(n.at, "one of %s is missing", strings.Join(s.one, ", "))
		case 1:
		default:
			d.report(n.at, "%s are given together; keep one", strings.Join(has, " and "))
		}
		return v
	}}
}

// advice answers an unknown key: what takes its place here, or the nearest known one.
func advice(key string, known []string, foreign map[string]string) string {
	if word := foreign[key]; word != "" {
		return "; " + word
	}
	if privileges[key] {
		return "; a sandbox gives no privileges, and no key asks for them"
	}
	return suggestion(key, known)
}

// privileges are Compose's keys that would open a sandbox.
var privileges = map[string]bool{
	"privileged": true, "devices": true, "device_cgroup_rules": true, "cap_add": true, "security_opt": true,
	"network_mode": true, "pid": true, "ipc": true, "uts": true, "userns_mode": true, "cgroup": true,
	"cgroup_parent": true, "sysctls": true, "group_add": true, "runtime": true, "gpus": true, "use_api_socket": true,
	"credential_spec": true, "volumes_from": true, "isolation": true, "oom_score_adj": true, "oom_kill_disable": true,
}

// what names the kind of value for a message.
func (n *node) what() string {
	switch {
	case n.kind == listNode:
		return "a list"
	case n.kind == mapNode:
		return "a map"
	case n.null():
		return "nothing"
	case n.tag == "!!int", n.tag == "!!float":
		return "the number " + n.text
	case n.tag == "!!bool":
		return "the boolean " + n.text
	}
	return fmt.Sprintf("the text %q", shorten(n.text))
}

func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// namePattern is Compose's for services and volumes.
const namePattern = `^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`

var nameRegexp = regexp.MustCompile(namePattern)

// entry is one pair of a map whose keys are the user's own names, in file order.
type entry[V any] struct {
	name  string
	at    position
	value V
}

// named is a map from names of the user's choice.
func named[V any](c codec[V], atLeast int) codec[[]entry[V]] {
	s := &shape{kind: "map", items: c.shape, keys: namePattern, extensions: true, atLeast: atLeast, says: "map of " + c.shape.says}
	return codec[[]entry[V]]{s, func(d *decoder, n *node) []entry[V] {
		if !d.spend(n) {
			return nil
		}
		if n.kind != mapNode {
			d.report(n.at, "%s where a map from names to %s belongs", n.what(), c.shape.says)
			return nil
		}
		if len(n.pairs) < atLeast {
			d.report(n.at, "empty; name at least one")
		}
		list := make([]entry[V], 0, len(n.pairs))
		for _, p := range n.pairs {
			if strings.HasPrefix(p.key, "x-") {
				continue
			}
			if !nameRegexp.MatchString(p.key) {
				d.report(p.at, "%q cannot be a name; use letters, digits, _ . and -, beginning with a letter or digit", shorten(p.key))
				continue
			}
			list = append(list, entry[V]{p.key, p.at, c.decode(d.under(p.key), p.value)})
		}
		return list
	}}
}

// list takes items of one type.
func list[V any](c codec[V], atLeast int) codec[[]V] {
	s := &shape{kind: "list", items: c.shape, atLeast: atLeast, says: "list of " + c.shape.says}
	return codec[[]V]{s, func(d *decoder, n *node) []V {
		if !d.spend(n) {
			return nil
		}
		if n.kind != listNode {
			d.report(n.at, "%s where a list belongs", n.what())
			return nil
		}
		if len(n.items) < atLeast {
			d.report(n.at, "an empty list; give at least one item")
		}
		var out []V
		for _, item := range n.items {
			out = append(out, c.decode(d, item))
		}
		return out
	}}
}

// oneOrMore takes a list or a single value that stands for a list of it.
func oneOrMore[V any](c codec[V]) codec[[]V] {
	many := list(c, 0)
	s := &shape{kind: "either", either: []*shape{c.shape, many.shape}, says: c.shape.says + " or list"}
	return codec[[]V]{s, func(d *decoder, n *node) []V {
		if n.kind == listNode {
			return many.decode(d, n)
		}
		return []V{c.decode(d, n)}
	}}
}

// deferred takes what c takes but leaves it unread: its expressions need the
// values of a matrix, so it is read once for each combination.
func deferred[V any](c codec[V]) codec[*node] {
	return codec[*node]{c.shape, func(_ *decoder, n *node) *node { return n }}
}

// placed keeps the place of a value for what is checked later.
type placed[V any] struct {
	value V
	at    position
}

func withPlace[V any](c codec[V]) codec[placed[V]] {
	return codec[placed[V]]{c.shape, func(d *decoder, n *node) placed[V] {
		return placed[V]{c.decode(d, n), n.at}
	}}
}

// orNothing takes what c takes, or nothing after the colon, which is an empty map.
func orNothing[V any](c codec[V]) codec[*V] {
	s := &shape{kind: "either", says: c.shape.says, either: []*shape{c.shape, {kind: "null"}}}
	return codec[*V]{s, func(d *decoder, n *node) *V {
		if n.null() {
			n = &node{kind: mapNode, at: n.at}
		}
		v := c.decode(d, n)
		return &v
	}}
}

// pointer keeps apart what is not given and what is.
func pointer[V any](c codec[V]) codec[*V] {
	return codec[*V]{c.shape, func(d *decoder, n *node) *V {
		v := c.decode(d, n)
		return &v
	}}
}
