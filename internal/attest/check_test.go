package attest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/attest"
)

// TestCheck says for sets of attestations what a gate would be told.
func TestCheck(t *testing.T) {
	w := newWorld(t)
	otherCommit := w.source
	otherCommit.Commit = strings.Repeat("f", 40)
	unit, integration := w.result(t, "unit"), w.result(t, "integration")
	with := func(r attest.TestResult, edit func(*attest.TestResult)) attest.TestResult {
		edit(&r)
		return r
	}
	failed := with(unit, func(r *attest.TestResult) { r.Passed = false })
	both := attest.Demand{Image: "web", Tests: []string{"unit", "integration"}}

	for _, c := range []struct {
		name    string
		demand  attest.Demand
		claims  []attest.Predicate
		missing []string // a part of each row that is not met
	}{
		{"all there", both, []attest.Predicate{unit, integration}, nil},
		{"nothing there", both, nil, []string{`no passing "unit" attestation`, `no passing "integration" attestation`}},
		{"one lacks", both, []attest.Predicate{unit}, []string{`no passing "integration"`}},
		{"failed", both, []attest.Predicate{failed, integration}, []string{"it says FAILED", "must name that"}},
		{"passed, then failed", both, []attest.Predicate{unit, integration, failed}, []string{"web/unit FAILED"}},
		{"a failed test that no gate asks for", attest.Demand{Image: "web", Tests: []string{"integration"}}, []attest.Predicate{failed, integration}, []string{"web/unit FAILED"}},
		{"a failed test that is gone", both, []attest.Predicate{unit, integration, with(failed, func(r *attest.TestResult) { r.Test, r.Task = "lint", "web/lint" })}, nil},
		{"another image's", attest.Demand{Image: "api", Tests: []string{"unit"}}, []attest.Predicate{unit}, []string{"no passing"}},
		{"of another combination", attest.Demand{Image: "web", Matrix: map[string]string{"v": "1"}, Tests: []string{"unit"}}, []attest.Predicate{unit}, []string{"no passing"}},
		{"another commit", both, []attest.Predicate{with(unit, func(r *attest.TestResult) { r.Source = otherCommit }), integration}, []string{`no passing "unit"`}},
		{"only another commit", attest.Demand{Image: "web", Tests: []string{"unit"}}, []attest.Predicate{with(unit, func(r *attest.TestResult) { r.Source = otherCommit })}, []string{"commit ffffffffffff is not on main"}},
		{"another definition", both, []attest.Predicate{with(unit, func(r *attest.TestResult) { r.Definition = integration.Definition }), integration}, []string{"it ran another test"}},
		{"another build", both, []attest.Predicate{with(unit, func(r *attest.TestResult) { r.Build = integration.Definition }), integration}, []string{"built otherwise"}},
		{"another plan", both, []attest.Predicate{with(unit, func(r *attest.TestResult) { r.Plan = integration.Definition }), integration}, []string{"its plan is not"}},
		{"another file", both, []attest.Predicate{with(unit, func(r *attest.TestResult) { r.File = integration.Definition }), integration}, []string{"its .ci.yml is not the one"}},
		{"another test's task", both, []attest.Predicate{with(integration, func(r *attest.TestResult) { r.Test = "unit" }), integration}, []string{"it ran another test"}},
		{"flaky", both, []attest.Predicate{with(unit, func(r *attest.TestResult) { r.Flaky, r.Attempts = true, 2 }), integration}, []string{"flaky (passed at attempt 2)"}},
		{"flaky allowed", attest.Demand{Image: "web", Tests: []string{"unit"}, AllowFlaky: true}, []attest.Predicate{with(unit, func(r *attest.TestResult) { r.Flaky, r.Attempts = true, 2 })}, nil},
		{"provenance", attest.Demand{Image: "web", Provenance: true}, []attest.Predicate{w.provenance(t)}, nil},
		{"no provenance", attest.Demand{Image: "web", Provenance: true}, []attest.Predicate{unit}, []string{"no provenance"}},
		{"provenance of another build", attest.Demand{Image: "web", Provenance: true}, []attest.Predicate{func() attest.Predicate {
			p := w.provenance(t)
			p.Build = unit.Definition
			return p
		}()}, []string{"built otherwise"}},
		{"an approval proves no test", both, []attest.Predicate{attest.Approval{Environment: "prod", Commit: w.source.Commit, Signed: now}}, []string{"no passing", "no passing"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := attest.Check(w.subject.Digest, c.demand, w.verifyAll(t, c.claims), w.expected(w.verifyAll(t, c.claims)))
			missing(t, table, c.missing)
		})
	}
}

func missing(t *testing.T, table attest.Table, want []string) {
	t.Helper()
	var got []string
	for _, r := range table.Rows {
		if (r.Missing == "") == (r.By == "") {
			t.Errorf("row %q is neither shown nor missing: %+v", r.What, r)
		}
		if r.Missing != "" {
			got = append(got, r.Missing)
		}
	}
	if table.Met() != (len(got) == 0) || len(got) != len(want) {
		t.Fatalf("missing %q, want %q", got, want)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("missing %q, want %q", got[i], want[i])
		}
	}
}

func (w world) verifyAll(t *testing.T, claims []attest.Predicate) []attest.Verified {
	t.Helper()
	var all []attest.Verified
	for _, p := range claims {
		v, err := w.verify(w.sign(t, w.signer, p))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

// TestSuperseding: only a pass that counts, of the same test, puts an end to a failure.
func TestSuperseding(t *testing.T) {
	w := newWorld(t)
	fail := w.result(t, "unit")
	fail.Passed = false
	f := w.verifyAll(t, []attest.Predicate{fail})[0]
	demand := attest.Demand{Image: "web", Tests: []string{"unit", "integration"}}
	integration := w.verifyAll(t, []attest.Predicate{w.result(t, "integration")})[0]
	for _, c := range []struct {
		name    string
		pass    func() attest.TestResult
		missing []string
	}{
		{"names it", func() attest.TestResult {
			r := w.result(t, "unit")
			r.Supersedes = []digest.Digest{f.Digest}
			return r
		}, nil},
		{"names another", func() attest.TestResult {
			r := w.result(t, "unit")
			r.Supersedes = []digest.Digest{digest.FromString("another")}
			return r
		}, []string{"must name that"}},
		{"is of another test", func() attest.TestResult {
			r := w.result(t, "integration")
			r.Supersedes = []digest.Digest{f.Digest}
			return r
		}, []string{`no passing "unit"`, "must name that"}},
		{"does not count itself", func() attest.TestResult {
			r := w.result(t, "unit")
			r.Supersedes, r.Flaky, r.Attempts = []digest.Digest{f.Digest}, true, 2
			return r
		}, []string{"flaky", "must name that"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pass := w.verifyAll(t, []attest.Predicate{c.pass()})
			found := append([]attest.Verified{f, integration}, pass...)
			missing(t, attest.Check(w.subject.Digest, demand, found, w.expected(found)), c.missing)
		})
	}
}

// TestNewestCommitThatDoes: where several commits have all that is asked for,
// the table speaks of the one attested last.
func TestNewestCommitThatDoes(t *testing.T) {
	w := newWorld(t)
	older, newer := w.result(t, "unit"), w.result(t, "unit")
	older.Source.Commit = strings.Repeat("a", 40)
	older.Signed = now.Add(-time.Hour / 2)
	unfinished := w.result(t, "integration")
	unfinished.Source.Commit = strings.Repeat("b", 40)
	found := w.verifyAll(t, []attest.Predicate{older, newer, unfinished})
	expected := map[attest.Source]attest.Expected{}
	for _, s := range attest.Sources(found) {
		expected[s] = attest.Expect(w.file, w.plan)
	}
	table := attest.Check(w.subject.Digest, attest.Demand{Image: "web", Tests: []string{"unit"}}, found, expected)
	if !table.Met() || table.Source != newer.Source || table.Rows[0].By != found[1].Digest {
		t.Errorf("got %+v", table)
	}
}
