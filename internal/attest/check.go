package attest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// Demand is what a gate asks of one image.
type Demand struct {
	Image      string            // name in the pipeline
	Matrix     map[string]string // values that its combination must have
	Tests      []string          // that must have passed
	Provenance bool
	AllowFlaky bool // a pass after a failure counts
}

// Expected is what a pipeline says about a Source, by somebody who has read it
// from the repository: never from the attestation.
type Expected struct {
	Refused     string                   // why nothing of this source counts ("it is not on main"); empty: it may
	file        digest.Digest            // of the pipeline file at that commit
	plan        digest.Digest            // of the pipeline expanded for the source's event
	definitions map[string]digest.Digest // pipeline.Plan.Definition by taskKey
}

// Expect gives what plan, expanded for a source's event from file, says.
func Expect(file []byte, plan pipeline.Plan) Expected {
	e := Expected{file: digest.FromBytes(file), plan: plan.Digest, definitions: map[string]digest.Digest{}}
	for _, t := range plan.Tasks {
		test := ""
		if t.Test != nil {
			test = t.Test.Name
		}
		e.definitions[taskKey(t.Image, t.Matrix, test)] = plan.Definition(t)
	}
	return e
}

// taskKey tells a pipeline's tasks apart; test is empty for a build.
func taskKey(image string, matrix map[string]string, test string) string {
	return fmt.Sprintf("%q %q %q", image, matrix, test) // maps print sorted by key
}

// Row is one thing that was asked for, and what shows it.
type Row struct {
	What    string        // "test unit", "provenance", "no failed lint"
	By      digest.Digest // of the attestation that shows it; empty where it is missing
	Key     Key           // that signed it
	Missing string        // what is missing, and why what is there does not count; empty where it is shown
}

// Table says for one image which demands are met, all by evidence of one commit.
type Table struct {
	Subject digest.Digest
	Source  Source // that the rows are about; zero where nothing is attested
	Rows    []Row
}

// Met says whether nothing is missing.
func (t Table) Met() bool {
	return !slices.ContainsFunc(t.Rows, func(r Row) bool { return r.Missing != "" })
}

// Sources lists the sources that a set of attestations speaks of, the one
// attested last first: for whoever is to say what is expected of each.
func Sources(found []Verified) []Source {
	var list []Source
	for _, v := range newestFirst(found) {
		if s, ok := sourceOf(v); ok && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

func newestFirst(found []Verified) []Verified {
	return slices.SortedStableFunc(slices.Values(found), func(a, b Verified) int {
		return cmp.Or(b.Signed.Compare(a.Signed), cmp.Compare(a.Digest, b.Digest))
	})
}

func sourceOf(v Verified) (Source, bool) {
	switch p := v.Predicate.(type) {
	case TestResult:
		return p.Source, true
	case Provenance:
		return p.Source, true
	}
	return Source{}, false
}

// Check holds the attestations found on one image against a demand. expected
// has every one of Sources(found); what it lacks does not count.
//
// All evidence must come from one commit; where several will do it is the one
// attested last. A FAILED result on the image blocks, whoever asked for that
// test, until a passing one that counts supersedes it by name; but not where the
// pipeline of that commit has no such test any more.
func Check(subject digest.Digest, d Demand, found []Verified, expected map[Source]Expected) Table {
	var best Table
	found = newestFirst(found)
	for i, group := range commits(Sources(found)) {
		t := checkCommit(subject, d, found, group, expected)
		if i == 0 || missing(t) < missing(best) {
			best = t
		}
	}
	if len(best.Rows) == 0 {
		best = checkCommit(subject, d, found, nil, expected)
	}
	return best
}

func missing(t Table) int {
	n := 0
	for _, r := range t.Rows {
		if r.Missing != "" {
			n++
		}
	}
	return n
}

// commits groups sources that differ in their event alone, in their order.
func commits(sources []Source) [][]Source {
	type commit struct{ repository, commit, pipeline string }
	var groups [][]Source
	at := map[commit]int{}
	for _, s := range sources {
		key := commit{s.Repository, s.Commit, s.Pipeline}
		i, known := at[key]
		if !known {
			i = len(groups)
			at[key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	return groups
}

// evidence is what one commit has to show.
type evidence struct {
	demand   Demand
	found    []Verified
	sources  []Source
	expected map[Source]Expected
}

func checkCommit(subject digest.Digest, d Demand, found []Verified, sources []Source, expected map[Source]Expected) Table {
	e := evidence{d, found, sources, expected}
	t := Table{Subject: subject}
	if len(sources) > 0 {
		t.Source = sources[0]
	}
	for _, name := range d.Tests {
		t.Rows = append(t.Rows, e.test(name))
	}
	if d.Provenance {
		t.Rows = append(t.Rows, e.provenance())
	}
	return Table{t.Subject, t.Source, append(t.Rows, e.failures()...)}
}

// test looks for a result that shows that the test passed.
func (e evidence) test(name string) Row {
	row := Row{What: "test " + name}
	var why reasons
	for _, v := range e.found {
		t, ok := v.Predicate.(TestResult)
		if !ok || t.Test != name || !e.wanted(t.Image, t.Matrix) || !slices.Contains(e.sources, t.Source) {
			continue
		}
		if no := e.counts(t); no != "" {
			why.add(v, no)
			continue
		}
		row.By, row.Key = v.Digest, v.Key
		return row
	}
	row.Missing = why.or("no passing %q attestation by a listed key", name)
	return row
}

// counts says why a result does not show that its test passed; empty: it does.
func (e evidence) counts(t TestResult) string {
	x, known := e.expected[t.Source]
	switch {
	case !t.Passed:
		return "it says FAILED"
	case !known:
		return "nobody has looked at its commit"
	case x.Refused != "":
		return x.Refused
	case t.File != x.file:
		return fmt.Sprintf("its %s is not the one at commit %.12s", t.Source.Pipeline, t.Source.Commit)
	case t.Definition != x.definitions[taskKey(t.Image, t.Matrix, t.Test)]:
		return fmt.Sprintf("it ran another test than %s at commit %.12s defines as %s", t.Source.Pipeline, t.Source.Commit, t.Task)
	case t.Build != x.definitions[taskKey(t.Image, t.Matrix, "")]:
		return fmt.Sprintf("its image was built otherwise than %s at commit %.12s says", t.Source.Pipeline, t.Source.Commit)
	case t.Plan != x.plan:
		return fmt.Sprintf("its plan is not what %s at commit %.12s expands to", t.Source.Pipeline, t.Source.Commit)
	case t.Flaky && !e.demand.AllowFlaky:
		return fmt.Sprintf("it is flaky (passed at attempt %d)", t.Attempts)
	}
	return ""
}

func (e evidence) provenance() Row {
	row := Row{What: "provenance"}
	var why reasons
	for _, v := range e.found {
		p, ok := v.Predicate.(Provenance)
		if !ok || !e.wanted(p.Image, p.Matrix) || !slices.Contains(e.sources, p.Source) {
			continue
		}
		x, known := e.expected[p.Source]
		switch {
		case !known:
			why.add(v, "nobody has looked at its commit")
		case x.Refused != "":
			why.add(v, x.Refused)
		case p.File != x.file || p.Build != x.definitions[taskKey(p.Image, p.Matrix, "")] || p.Plan != x.plan:
			why.add(v, fmt.Sprintf("it was built otherwise than %s at commit %.12s says", p.Source.Pipeline, p.Source.Commit))
		default:
			row.By, row.Key = v.Digest, v.Key
			return row
		}
	}
	row.Missing = why.or("no provenance by a listed key")
	return row
}

// failures gives a row for each FAILED result that still stands.
func (e evidence) failures() []Row {
	var rows []Row
	for _, v := range e.found {
		f, ok := v.Predicate.(TestResult)
		if !ok || f.Passed || e.gone(f) || slices.ContainsFunc(e.found, func(p Verified) bool { return e.ends(p, v) }) {
			continue
		}
		rows = append(rows, Row{
			What:    "no failed " + f.Test,
			Missing: fmt.Sprintf("%s FAILED in run %s (attestation %s); a later pass of it must name that", f.Task, f.Run, v.Digest),
		})
	}
	slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(a.What, b.What) })
	return rows
}

// ends says whether p is a pass that counts and supersedes f.
func (e evidence) ends(p, f Verified) bool {
	t, ok := p.Predicate.(TestResult)
	return ok && t.supersedes(f) && e.counts(t) == ""
}

// gone says whether the pipeline at this commit has no such test any more.
func (e evidence) gone(f TestResult) bool {
	for _, s := range e.sources {
		x := e.expected[s]
		if _, has := x.definitions[taskKey(f.Image, f.Matrix, f.Test)]; x.Refused != "" || x.plan == "" || has {
			return false
		}
	}
	return len(e.sources) > 0
}

// wanted says whether an image of the pipeline is the one asked for.
func (e evidence) wanted(image string, matrix map[string]string) bool {
	if image != e.demand.Image {
		return false
	}
	for k, v := range e.demand.Matrix {
		if got, ok := matrix[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// reasons are why attestations that are there do not count.
type reasons []string

func (r *reasons) add(v Verified, why string) {
	*r = append(*r, fmt.Sprintf("attestation %.19s does not count: %s", v.Digest, why))
}

func (r reasons) or(format string, args ...any) string {
	if len(r) == 0 {
		return fmt.Sprintf(format, args...)
	}
	return fmt.Sprintf(format, args...) + "; " + strings.Join(slices.Compact(slices.Sorted(slices.Values(r))), "; ")
}

// Standing are the FAILED results among found that no passing one of found
// supersedes by name.
func Standing(found []Verified) []Verified {
	var standing []Verified
	for _, f := range found {
		failed, ok := f.Predicate.(TestResult)
		ended := func(p Verified) bool {
			t, ok := p.Predicate.(TestResult)
			return ok && t.supersedes(f)
		}
		if ok && !failed.Passed && !slices.ContainsFunc(found, ended) {
			standing = append(standing, f)
		}
	}
	return standing
}
