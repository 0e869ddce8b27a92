package dockerfile

import (
	"fmt"
	"sort"
	"strings"
)

// changed says what about the step itself differs from its like in before, or
// nothing when the cause lies in an earlier step.
func changed(now *Step, before []Step) string {
	old := like(now, before)
	switch {
	case old == nil:
		return lineOf(now) + "is new"
	case old.Key == now.Key:
		return ""
	case old.Base != now.Base:
		return baseChange(old.Base, now.Base)
	}
	if files := fileChanges(old.Sources, now.Sources); files != "" {
		return files
	}
	if names := envChanges(old.Env, now.Env); names != "" {
		return names
	}
	if old.Text != now.Text {
		return lineOf(now) + "changed"
	}
	return ""
}

func lineOf(s *Step) string {
	if s.Line == 0 {
		return "it "
	}
	return fmt.Sprintf("Dockerfile line %d ", s.Line)
}

// like finds the step of an earlier build that now took the place of: the one
// of the same name, else the same text, else the same number.
func like(now *Step, before []Step) *Step {
	for _, same := range []func(*Step) bool{
		func(s *Step) bool { return s.Name == now.Name },
		func(s *Step) bool { return s.Text != "" && s.Text == now.Text },
		func(s *Step) bool { return number(s.Name) != "" && number(s.Name) == number(now.Name) },
	} {
		for i := range before {
			if same(&before[i]) {
				return &before[i]
			}
		}
	}
	return nil
}

// number is the "[build 2/4]" of a step's name.
func number(name string) string {
	if i := strings.IndexByte(name, ']'); i > 0 && name[0] == '[' && strings.Contains(name[:i], "/") {
		return name[:i+1]
	}
	return ""
}

func baseChange(old, now string) string {
	was, _, _ := strings.Cut(old, "@")
	is, _, _ := strings.Cut(now, "@")
	if was == is {
		return "base " + friendly(is) + " changed"
	}
	return fmt.Sprintf("base changed from %s to %s", friendly(was), friendly(is))
}

// fileChanges names the first few files that differ.
func fileChanges(old, now []Source) string {
	was := map[string]string{}
	for _, s := range old {
		was[s.Path] = s.Sum
	}
	var words []string
	for _, s := range now {
		sum, ok := was[s.Path]
		delete(was, s.Path)
		if !ok {
			words = append(words, s.Path+" is new")
		} else if sum != s.Sum {
			words = append(words, s.Path+" changed")
		}
	}
	gone := make([]string, 0, len(was))
	for path := range was {
		gone = append(gone, path+" is gone")
	}
	sort.Strings(gone)
	return few(append(words, gone...))
}

func envChanges(old, now map[string]string) string {
	var words []string
	for name, sum := range now {
		if old[name] != sum {
			words = append(words, name+" changed")
		}
	}
	for name := range old {
		if _, ok := now[name]; !ok {
			words = append(words, name+" is gone")
		}
	}
	sort.Strings(words)
	return few(words)
}

// few keeps a list readable.
func few(words []string) string {
	const most = 3
	if len(words) > most {
		words = append(words[:most:most], fmt.Sprintf("and %d more", len(words)-most))
	}
	return strings.Join(words, ", ")
}
