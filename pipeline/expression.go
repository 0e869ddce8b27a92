package pipeline

import (
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// scope is what ${{ }} can see at a place.
type scope struct {
	matrix  map[string]string // nil: no matrix here
	whose   string            // the task it is read for
	event   *Event            // nil: not known yet, a value that uses it is left unread
	lenient bool              // matrix values are not known yet either
	never   string            // not empty: no expressions here, and why
}

var termRegexp = regexp.MustCompile(`^\s*([A-Za-z_][A-Za-z0-9_-]*)\.([A-Za-z0-9_][A-Za-z0-9_.-]*)\s*$`)

// eventTerms are the names under "event.".
var eventTerms = []string{"ref", "commit", "branch", "tag", "kind"}

func (e *Event) term(name string) string {
	switch name {
	case "ref":
		return e.Ref
	case "commit":
		return e.Commit
	case "branch":
		return e.branch()
	case "tag":
		return e.tag()
	case "kind":
		return string(e.Kind)
	}
	return ""
}

// branch is the branch pushed to, or the target of a pull request.
func (e *Event) branch() string {
	if e.Kind == PullRequest {
		return e.Base
	}
	name, found := strings.CutPrefix(e.Ref, "refs/heads/")
	if !found {
		return ""
	}
	return name
}

func (e *Event) tag() string {
	name, found := strings.CutPrefix(e.Ref, "refs/tags/")
	if !found {
		return ""
	}
	return name
}

// text is a scalar's text with its expressions filled in. known is false where
// a value is not there yet, or was reported as wrong: the caller then returns
// its zero value and says nothing. filled tells that an expression took part, so
// that "${{ matrix.retries }}" may be a number although YAML calls it text.
func (d *decoder) text(n *node) (text string, filled, known bool) {
	if !strings.Contains(n.text, "${{") {
		return n.text, false, true
	}
	var out strings.Builder
	known = true
	rest := n.text
	for {
		before, term, kind := cutExpression(rest)
		out.WriteString(before)
		rest = rest[len(before):]
		switch kind {
		case noMark:
			return out.String(), filled, known
		case escapedMark:
			out.WriteString("${{")
			rest = rest[len("$${{"):]
		case openMark:
			d.report(d.errs.inside(n.at, rest), `%q has no "}}"; close the expression, or write $${{ for the text itself`, shorten(rest))
			return "", true, false
		case termMark:
			value, ok := d.value(n, term)
			known = known && ok
			out.WriteString(value)
			filled, rest = true, rest[len("${{"+term+"}}"):]
		}
	}
}

type mark int

const (
	noMark      mark = iota
	escapedMark      // $${{, which is the text ${{
	openMark         // ${{ and nothing that closes it
	termMark         // ${{ term }}
)

// cutExpression finds the first mark in text, what stands before it, and the term in it.
func cutExpression(text string) (before, term string, kind mark) {
	i := strings.Index(text, "${{")
	switch {
	case i < 0:
		return text, "", noMark
	case i > 0 && text[i-1] == '$':
		return text[:i-1], "", escapedMark
	}
	term, _, closed := strings.Cut(text[i+len("${{"):], "}}")
	if !closed {
		return text[:i], "", openMark
	}
	return text[:i], term, termMark
}

// value is what the term between ${{ and }} stands for.
func (d *decoder) value(n *node, term string) (string, bool) {
	place := func() position { return d.errs.inside(n.at, "${{"+term+"}}") }
	if d.scope.never != "" {
		d.report(place(), "${{%s}} cannot stand here: %s", shorten(term), d.scope.never)
		return "", false
	}
	match := termRegexp.FindStringSubmatch(term)
	if match == nil {
		d.report(place(), "${{%s}} is not an expression; write ${{ matrix.NAME }} or ${{ event.%s }}", shorten(term), strings.Join(eventTerms, "|"))
		return "", false
	}
	switch root, name := match[1], match[2]; root {
	case "matrix":
		return d.matrixValue(place, name)
	case "event":
		if !slices.Contains(eventTerms, name) {
			d.report(place(), "event has no %q%s", name, suggestion(name, eventTerms))
			return "", false
		}
		if d.scope.event == nil {
			return "", false
		}
		return d.scope.event.term(name), true
	case "secrets", "secret":
		d.report(place(), "secrets are never text of the pipeline; list the name under secrets and read it in the test")
	case "env", "vars", "github", "inputs", "needs", "steps", "runner":
		d.report(place(), "%q is not known here; expressions see matrix and event only", root)
	default:
		d.report(place(), "%q is not known here; expressions see matrix and event only%s", root, suggestion(root, []string{"matrix", "event"}))
	}
	return "", false
}

func (d *decoder) matrixValue(place func() position, name string) (string, bool) {
	if d.scope.lenient {
		return "", false
	}
	if value, ok := d.scope.matrix[name]; ok {
		return value, true
	}
	if len(d.scope.matrix) == 0 {
		d.report(place(), "matrix.%s has no value: %s has no matrix; give its image one with that key", name, d.scope.whose)
	} else {
		known := slices.Collect(maps.Keys(d.scope.matrix))
		d.report(place(), "matrix.%s has no value in %s%s", name, d.scope.whose, suggestion(name, known))
	}
	return "", false
}

// expressions are the terms between ${{ and }} anywhere in n.
func (n *node) expressions() iter.Seq[string] {
	return func(yield func(string) bool) { n.eachExpression(map[*node]bool{}, yield) }
}

func (n *node) eachExpression(seen map[*node]bool, yield func(string) bool) bool {
	if seen[n] {
		return true
	}
	seen[n] = true
	for _, item := range n.items {
		if !item.eachExpression(seen, yield) {
			return false
		}
	}
	for _, p := range n.pairs {
		if !p.value.eachExpression(seen, yield) {
			return false
		}
	}
	rest := n.text
	for {
		before, term, kind := cutExpression(rest)
		rest = rest[len(before):]
		switch kind {
		case noMark, openMark:
			return true
		case escapedMark:
			rest = rest[len("$${{"):]
		case termMark:
			if !yield(term) {
				return false
			}
			rest = rest[len("${{"+term+"}}"):]
		}
	}
}
