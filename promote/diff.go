package promote

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"slipway/pipeline"
)

// Difference is how one state of an environment differs from another one, or
// from another environment.
type Difference struct {
	From  string   `json:"from"`
	To    string   `json:"to"`
	Lines []string `json:"lines"` // "image web: sha256:… → sha256:…"; of a secret only that it is another one
}

// Diff compares an environment with another, with the state that a promotion or
// commit of its history left, or (other empty) with the state before its last change.
func (s State) Diff(name, other string) (Difference, error) {
	file, err := s.File(name)
	if err != nil {
		return Difference{}, err
	}
	if _, isEnvironment := s.paths[other]; isEnvironment {
		second, err := s.File(other)
		if err != nil {
			return Difference{}, err
		}
		return Difference{name, other, differences(file.Environment, second.Environment)}, nil
	}
	history, err := s.History(name)
	if err != nil {
		return Difference{}, err
	}
	old, label, err := earlier(history, name, other)
	if err != nil || old.data == nil {
		return Difference{label, name, []string{}}, err
	}
	first, err := parseFile(file.Path, old.data)
	if err != nil {
		return Difference{}, err
	}
	d := Difference{label, name, differences(first.Environment, file.Environment)}
	if len(d.Lines) == 0 && !bytes.Equal(old.data, file.Data) {
		d.Lines = []string{"only comments or order"}
	}
	return d, nil
}

func earlier(history []Entry, name, which string) (Entry, string, error) {
	if which == "" {
		if len(history) < 2 {
			return Entry{}, "nothing", nil
		}
		return history[1], fmt.Sprintf("commit %.12s", history[1].Commit), nil
	}
	for _, e := range history {
		if e.ID == which || len(which) >= 7 && strings.HasPrefix(e.Commit, which) {
			return e, which, nil
		}
	}
	return Entry{}, "", mistake("%q is neither an environment nor a promotion of %s; `slipway env history %s` lists those", which, name, name)
}

// differences says what an environment would have to change to be the other.
func differences(a, b *pipeline.Environment) []string {
	lines := []string{}
	images := func(e *pipeline.Environment) map[string]string {
		all := map[string]string{}
		for name, im := range e.Images {
			all[name] = orNothing(im.Digest)
		}
		return all
	}
	compare(&lines, "image", images(a), images(b))
	compare(&lines, "variable", a.Environment, b.Environment)
	for _, name := range keys(a.Secrets, b.Secrets) {
		was, had := a.Secrets[name]
		is, has := b.Secrets[name]
		switch {
		case !has:
			lines = append(lines, fmt.Sprintf("secret %s is gone", name))
		case !had:
			lines = append(lines, fmt.Sprintf("secret %s is new", name))
		case fmt.Sprint(was) != fmt.Sprint(is):
			lines = append(lines, fmt.Sprintf("secret %s is another one", name))
		}
	}
	rest := func(e *pipeline.Environment) map[string]string {
		verify := ""
		if e.Verify != nil {
			verify = fmt.Sprint(*e.Verify)
		}
		var asked []string
		for _, g := range gates(e) {
			asked = append(asked, g.String())
		}
		return map[string]string{
			"gates": strings.Join(asked, "; "), "from": strings.Join(e.From, ", "), "source": strings.TrimSpace(e.Source.Repository + " " + e.Source.Pipeline),
			"deliver": deliverText(e.Deliver), "verify": verify,
		}
	}
	compare(&lines, "", rest(a), rest(b))
	return lines
}

func deliverText(d pipeline.Deliver) string {
	if d.Kind == "" {
		return ""
	}
	return strings.TrimSpace(fmt.Sprint(d.Kind, " ", d.Config)) // fmt sorts the keys of maps
}

func compare(lines *[]string, what string, a, b map[string]string) {
	show := func(s string, ok bool) string {
		if !ok || s == "" {
			return nothing
		}
		return s
	}
	for _, name := range keys(a, b) {
		was, had := a[name]
		is, has := b[name]
		if had != has || was != is {
			*lines = append(*lines, strings.TrimSpace(fmt.Sprintf("%s %s: %s → %s", what, name, show(was, had), show(is, has))))
		}
	}
}

func keys[V any](a, b map[string]V) []string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}
