package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"slipway/internal/store"
	"slipway/pipeline"
)

// painter writes with or without colour.
type painter struct {
	w     io.Writer
	color bool
	runID string
}

const (
	green  = "32"
	red    = "31"
	yellow = "33"
	dim    = "2"
	bold   = "1"
)

func (p painter) paint(code, s string) string {
	if !p.color || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// run prints what became of a run, for people.
func (p painter) run(r store.Run, logs string) {
	p.runID = r.ID
	for _, im := range r.Images {
		p.image(im)
	}
	took := time.Duration(r.Duration) * time.Millisecond
	state := p.paint(stateColor(r.State), string(r.State))
	fmt.Fprintf(p.w, "\nrun %s %s in %s\n", r.ID, state, short(took))
	switch r.State {
	case pipeline.Passed:
	case pipeline.Canceled:
		fmt.Fprintln(p.w, r.Reason)
	default:
		fmt.Fprintf(p.w, "logs: %s\n", logs)
	}
	if r.Unsigned != "" {
		fmt.Fprintln(p.w, p.paint(dim, "not signed: "+r.Unsigned))
	}
}

func (p painter) image(im store.Image) {
	name := im.Name + matrixSuffix(im.Matrix)
	fmt.Fprintf(p.w, "\n%s  %s", p.paint(bold, name), p.paint(imageColor(im.State), im.State))
	if im.BuildMS > 0 && im.State != "skipped" {
		fmt.Fprintf(p.w, " in %s", short(time.Duration(im.BuildMS)*time.Millisecond))
	}
	if im.Digest != "" {
		fmt.Fprintf(p.w, "\n  %s", p.paint(dim, im.Repository+"@"+im.Digest))
	}
	fmt.Fprintln(p.w)
	if im.Reason != "" {
		fmt.Fprintln(p.w, indent(im.Reason, "  "))
	}
	var platforms []string
	for name := range im.Platforms {
		platforms = append(platforms, name)
	}
	slices.Sort(platforms)
	for _, name := range platforms {
		note := "tested"
		if !im.Platforms[name].Tested {
			note = p.paint(yellow, "not tested on this machine")
		}
		fmt.Fprintf(p.w, "  %s  %s  %s\n", name, im.Platforms[name].Digest, note)
	}
	for _, t := range im.Tests {
		p.test(name, t)
	}
}

func (p painter) test(image string, t store.Test) {
	mark := map[pipeline.State]string{pipeline.Passed: "✓", pipeline.Failed: "✗", pipeline.Skipped: "-", pipeline.Canceled: "-", pipeline.Error: "!"}[t.State]
	line := fmt.Sprintf("  %s %s", p.paint(stateColor(t.State), mark), t.Name)
	var notes []string
	switch {
	case t.ReusedFrom != "":
		notes = append(notes, "reused from run "+t.ReusedFrom)
	case t.State == pipeline.Passed || t.State == pipeline.Failed:
		notes = append(notes, short(time.Duration(t.DurationMS)*time.Millisecond))
		if t.PeakMemory > 0 {
			notes = append(notes, fmt.Sprintf("%d MB", (t.PeakMemory+1<<20-1)>>20))
		}
	}
	if t.Flaky {
		notes = append(notes, p.paint(yellow, fmt.Sprintf("flaky: passed at attempt %d", t.Attempts)))
	} else if t.Attempts > 1 {
		notes = append(notes, fmt.Sprintf("%d attempts", t.Attempts))
	}
	if j := t.JUnit; j != nil && j.Tests > 0 {
		notes = append(notes, fmt.Sprintf("%d cases, %d failed, %d skipped", j.Tests, j.Failures+j.Errors, j.Skipped))
	}
	if len(notes) > 0 {
		line += "  " + p.paint(dim, strings.Join(notes, " · "))
	}
	fmt.Fprintln(p.w, line)
	if t.State != pipeline.Passed && t.Reason != "" {
		fmt.Fprintln(p.w, indent(t.Reason, "      "))
	}
	if t.KeptUntil != nil {
		fmt.Fprintf(p.w, "      kept as it was left until %s: slipway shell %s/%s\n", t.KeptUntil.Local().Format(time.TimeOnly), p.runID, image+"/"+t.Name)
	}
	if t.JUnit == nil {
		return
	}
	for _, c := range t.JUnit.Failed {
		fmt.Fprintf(p.w, "      %s", p.paint(red, c.Name))
		if c.Message != "" {
			fmt.Fprintf(p.w, ": %s", c.Message)
		}
		fmt.Fprintln(p.w)
	}
	for _, problem := range t.JUnit.Problems {
		fmt.Fprintf(p.w, "      %s\n", p.paint(yellow, problem))
	}
}

func stateColor(s pipeline.State) string {
	switch s {
	case pipeline.Passed:
		return green
	case pipeline.Failed, pipeline.Error:
		return red
	default:
		return yellow
	}
}

func imageColor(state string) string {
	switch state {
	case "built", "cached":
		return green
	case "failed", "error":
		return red
	default:
		return yellow
	}
}

// plural is a number with the word for one or for several.
func plural(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", several)
}

func matrixSuffix(m map[string]string) string {
	if len(m) == 0 {
		return ""
	}
	var pairs []string
	for k, v := range m {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	return "[" + strings.Join(pairs, ",") + "]"
}

func indent(s, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n"+by)
}

// short gives a duration with three figures at most.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// testsOf are the tests of a run by the IDs of their tasks.
func testsOf(run store.Run) map[string]store.Test {
	all := map[string]store.Test{}
	for _, im := range run.Images {
		for _, t := range im.Tests {
			all[im.Name+matrixSuffix(im.Matrix)+"/"+t.Name] = t
		}
	}
	return all
}

// noTest says which tests a run has instead of one.
func noTest(run store.Run, task string) error {
	has := slices.Sorted(maps.Keys(testsOf(run)))
	if len(has) == 0 {
		return fmt.Errorf("run %s has no test %q, nor any other", run.ID, task)
	}
	return fmt.Errorf("run %s has no test %q; it has %s", run.ID, task, strings.Join(has, ", "))
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)
