package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ordered puts every task behind what it needs and otherwise keeps the file's
// order. The needs have no cycle: check has refused those.
func ordered(tasks []Task) []Task {
	out := make([]Task, 0, len(tasks))
	place := make([]int, len(tasks)) // 0 is not placed yet, else the index in out and one
	var visit func(i int)
	visit = func(i int) {
		if place[i] != 0 {
			return
		}
		place[i] = -1
		for _, need := range tasks[i].Needs {
			visit(need)
		}
		out = append(out, tasks[i])
		place[i] = len(out)
	}
	for i := range tasks {
		visit(i)
	}
	for i := range out {
		needs := make([]int, 0, len(out[i].Needs))
		for _, need := range out[i].Needs {
			needs = append(needs, place[need]-1)
		}
		slices.Sort(needs)
		if out[i].Needs = needs; len(needs) == 0 {
			out[i].Needs = nil
		}
	}
	return out
}

// skip writes the Skip reasons of ev, over those that tests have of their own. A
// build that a running task needs runs too; a test whose need is skipped does not.
func (p *Pipeline) skip(tasks []Task, ev Event) {
	all := p.When.skip(ev)
	reasons := make(map[string]string, len(p.images))
	for _, img := range p.images {
		switch own := img.value.when.skip(ev); {
		case all != "":
			reasons[img.name] = all
		case own != "":
			reasons[img.name] = own
		default:
			reasons[img.name] = pathSkip(img.value.paths, ev)
		}
	}
	for i := range tasks {
		if why := reasons[tasks[i].Image]; why != "" {
			tasks[i].Skip = why
		}
		for _, need := range tasks[i].Needs {
			if n := tasks[need]; n.Kind == TestTask && n.Skip != "" && tasks[i].Skip == "" {
				tasks[i].Skip = "needs " + n.ID + ", which is skipped"
			}
		}
	}
	for i := len(tasks) - 1; i >= 0; i-- {
		if tasks[i].Skip != "" {
			continue
		}
		for _, need := range tasks[i].Needs {
			tasks[need].Skip = ""
		}
	}
}

// selected keeps the tasks that only names and what they need.
func selected(tasks []Task, only []string) ([]Task, error) {
	if len(only) == 0 {
		return tasks, nil
	}
	keep := make([]bool, len(tasks))
	for _, name := range only {
		s := cutSelection(name)
		found := false
		for i, t := range tasks {
			if s.selects(t) {
				keep[i], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("no image or test %q in the plan%s", name, suggestion(name, selectable(tasks)))
		}
	}
	for i := len(tasks) - 1; i >= 0; i-- {
		if keep[i] {
			for _, need := range tasks[i].Needs {
				keep[need] = true
			}
		}
	}
	place := make([]int, len(tasks))
	var out []Task
	for i, t := range tasks {
		if !keep[i] {
			continue
		}
		for j, need := range t.Needs {
			t.Needs[j] = place[need]
		}
		place[i] = len(out)
		out = append(out, t)
	}
	return out, nil
}

// selection is what a person names: "api", "api/unit", "api[python=3.12]/unit".
type selection struct {
	image, test string
	matrix      map[string]string
}

func cutSelection(name string) selection {
	var s selection
	rest := name
	if before, after, bracketed := strings.Cut(name, "["); bracketed {
		selector, behind, _ := strings.Cut(after, "]")
		s.matrix, rest = cutSelector(selector), before+behind
	}
	s.image, s.test, _ = strings.Cut(rest, "/")
	return s
}

func (s selection) selects(t Task) bool {
	if t.Image != s.image || !contains(t.Matrix, s.matrix) {
		return false
	}
	return s.test == "" || (t.Kind == TestTask && t.Test.Name == s.test)
}

// selectable are the names that only knows, without matrices.
func selectable(tasks []Task) []string {
	known := map[string]bool{}
	for _, t := range tasks {
		name := t.Image
		if t.Kind == TestTask {
			name += "/" + t.Test.Name
		}
		known[name] = true
	}
	return slices.Sorted(maps.Keys(known))
}
