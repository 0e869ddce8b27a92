package promote

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/attest"
	"slipway/pipeline"
)

var signer = func() attest.Signer {
	s, _, err := attest.NewSigner(noon, time.Time{})
	if err != nil {
		panic(err)
	}
	return s
}()

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) // a Wednesday

// facts are those of an image that may pass every gate there is.
func facts() Facts {
	source := attest.Source{Repository: "file:///code", Commit: strings.Repeat("a", 40), Pipeline: ".ci.yml"}
	f := Facts{
		Now: noon, Promotion: "p1", Actor: "Bob <bob@example.com>",
		Environment: &pipeline.Environment{Name: "prod", From: []string{"test"}, Gates: pipeline.Gates{
			Branch: "main", Signers: []string{"s.pub"}, Tests: []string{"unit", "web/it"}, Evidence: []pipeline.Evidence{pipeline.TestResult},
			Approvals: &pipeline.Approvals{Count: 2, From: []string{"ops"}, Not: "author"}, Soak: time.Hour,
			Freeze: []pipeline.Freeze{{Start: "Fri 17:00", End: "Mon 08:00", TZ: "Europe/Berlin"}},
		}},
	}
	file := []byte("version: 1\nimages:\n  web: {build: ., tests: {unit: {command: u}, it: {command: i}}}\n  api: {build: ., tests: {unit: {command: u}}}\n")
	parsed, err := pipeline.Parse(".ci.yml", file)
	if err != nil {
		panic(err)
	}
	plan, err := parsed.Expand(pipeline.Event{Repo: source.Repository, Commit: source.Commit, Trusted: true})
	if err != nil {
		panic(err)
	}
	defined := map[string]digest.Digest{}
	for _, t := range plan.Tasks {
		defined[t.ID] = plan.Definition(t)
	}
	want := attest.Expect(file, plan)
	for _, name := range []string{"web", "api"} {
		im := ImageFacts{Name: name, Digest: digest.FromString(name), Where: name, Expected: map[attest.Source]Expected{}}
		tests := []string{"unit"}
		if name == "web" {
			tests = append(tests, "it")
		}
		for _, test := range tests {
			im.Found = append(im.Found, attest.Verified{
				Digest: digest.FromString(name + test), Subject: im.Digest, Key: signer.Key, Signed: noon,
				Predicate: attest.TestResult{
					Passed: true, Source: source, File: digest.FromBytes(file), Plan: plan.Digest, Build: defined[name], Definition: defined[name+"/"+test],
					Task: name + "/" + test, Image: name, Test: test, Attempts: 1,
				},
			})
		}
		im.Expected[source] = Expected{Expected: want, Tests: tests, Authors: []string{"ann@example.com"}}
		for _, who := range []string{"cid", "dan"} {
			im.Agreed = append(im.Agreed, Agreement{By: who, Key: who, Email: who + "@example.com", Digest: digest.FromString(who), Statement: attest.Approval{Environment: "prod", Commit: source.Commit}})
		}
		im.Ran = []Stretch{{Environment: "test", From: noon.Add(-2 * time.Hour)}}
		f.Images = append(f.Images, im)
	}
	return f
}

func shut(t Table) string {
	var names []string
	for _, r := range t.Rows {
		if !r.Passed && r.SetAside == "" {
			names = append(names, strings.TrimPrefix(r.Image+"/"+r.Gate, "/"))
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " ")
}

func TestGates(t *testing.T) {
	agree := func(f *Facts, gates ...string) {
		for i := range f.Images {
			f.Images[i].Agreed = append(f.Images[i].Agreed, Agreement{By: "eve", Key: "eve", Email: "eve@example.com", Statement: attest.BreakGlass{Environment: "prod", Promotion: "p1", Gates: gates, Reason: "fire"}})
		}
	}
	result := func(f *Facts, change func(*attest.TestResult)) {
		r := f.Images[0].Found[0].Predicate.(attest.TestResult)
		change(&r)
		f.Images[0].Found[0].Predicate = r
	}
	refuse := func(f *Facts, why string) {
		for s, e := range f.Images[0].Expected {
			e.Refused = why
			f.Images[0].Expected[s] = e
		}
	}
	for _, c := range []struct {
		name   string
		change func(f *Facts)
		shut   string
	}{
		{"all is there", func(*Facts) {}, ""},
		{"nowhere to be found", func(f *Facts) { f.Images[0].Where = "" }, "web/image"},
		{"never ran in test", func(f *Facts) { f.Images[0].Ran = nil }, "web/from web/soak"},
		{"failed in test", func(f *Facts) { f.Images[0].Ran[0].Failed = true }, "web/from web/soak"},
		{"ran elsewhere", func(f *Facts) { f.Images[0].Ran[0].Environment = "stage" }, "web/from web/soak"},
		{"too short", func(f *Facts) { f.Images[0].Ran[0].From = noon.Add(-59 * time.Minute) }, "web/soak"},
		{"long enough, earlier", func(f *Facts) { f.Images[0].Ran[0].To = noon.Add(-time.Hour) }, ""},
		{"twice too short", func(f *Facts) {
			f.Images[0].Ran = []Stretch{{"test", noon.Add(-3 * time.Hour), noon.Add(-150 * time.Minute), false}, {"test", noon.Add(-40 * time.Minute), time.Time{}, false}}
		}, "web/soak"},
		{"not merged", func(f *Facts) { refuse(f, "it is not on main") }, "web/branch web/tests"},
		{"nobody signed", func(f *Facts) { f.Images[0].Found = nil }, "web/approvals web/branch web/tests"},
		{"failed", func(f *Facts) { result(f, func(r *attest.TestResult) { r.Passed = false }) }, "web/tests"},
		{"flaky", func(f *Facts) { result(f, func(r *attest.TestResult) { r.Flaky, r.Attempts = true, 2 }) }, "web/tests"},
		{"flaky is allowed", func(f *Facts) {
			result(f, func(r *attest.TestResult) { r.Flaky, r.Attempts = true, 2 })
			f.Environment.Gates.Flaky = pipeline.FlakyAllow
		}, ""},
		{"a weaker test", func(f *Facts) { result(f, func(r *attest.TestResult) { r.Definition = digest.FromString("true") }) }, "web/tests"},
		{"one approval", func(f *Facts) { f.Images[0].Agreed = f.Images[0].Agreed[:1] }, "web/approvals"},
		{"twice by the same key", func(f *Facts) { f.Images[0].Agreed[1].Key = f.Images[0].Agreed[0].Key }, "web/approvals"},
		{"by the author", func(f *Facts) { f.Images[0].Agreed[0].Email = "Ann@example.com" }, "web/approvals"},
		{"by nobody knows whom", func(f *Facts) { f.Images[0].Agreed[0].Email = "" }, "web/approvals"},
		{"for another environment", func(f *Facts) {
			f.Images[0].Agreed[0].Statement = attest.Approval{Environment: "stage", Commit: strings.Repeat("a", 40)}
		}, "web/approvals"},
		{"of another commit", func(f *Facts) {
			f.Images[0].Agreed[0].Statement = attest.Approval{Environment: "prod", Commit: strings.Repeat("b", 40)}
		}, "web/approvals"},
		{"of another promotion", func(f *Facts) {
			f.Images[0].Agreed[0].Statement = attest.Approval{Environment: "prod", Promotion: "p2", Commit: strings.Repeat("a", 40)}
		}, "web/approvals"},
		{"on Friday", func(f *Facts) { f.Now = time.Date(2026, 11, 27, 16, 0, 0, 0, time.UTC) }, "freeze"},
		{"just before", func(f *Facts) { f.Now = time.Date(2026, 11, 27, 15, 59, 0, 0, time.UTC) }, ""},
		{"no such time zone", func(f *Facts) { f.Environment.Gates.Freeze[0].TZ = "Europe/Nowhere" }, "freeze"},
		{"glass broken, and nobody asked for it", func(f *Facts) { f.Images[0].Ran = nil; agree(f, "soak", "from") }, "web/from web/soak"},
		{"glass broken", func(f *Facts) { f.Images[0].Ran = nil; f.BreakGlass = "fire"; agree(f, "soak", "from") }, ""},
		{"glass broken for one gate", func(f *Facts) { f.Images[0].Ran = nil; f.BreakGlass = "fire"; agree(f, "soak") }, "web/from"},
		{"the branch is no glass", func(f *Facts) { refuse(f, "no"); f.BreakGlass = "fire"; agree(f, "branch", "tests") }, "web/branch"},
		{"broken by who asks", func(f *Facts) {
			f.Images[0].Ran = nil
			f.BreakGlass = "fire"
			f.Actor = "Eve <Eve@example.com>"
			agree(f, "soak", "from")
		}, "web/from web/soak"},
		{"broken by the author", func(f *Facts) {
			f.Images[0].Ran, f.BreakGlass = nil, "fire"
			agree(f, "soak", "from")
			f.Images[0].Agreed[2].Email = "ann@example.com"
		}, "web/from web/soak"},
		{"broken for another promotion", func(f *Facts) {
			f.Images[0].Ran = nil
			f.BreakGlass = "fire"
			agree(f, "soak", "from")
			f.Promotion = "p2"
		}, "web/from web/soak"},
		{"freeze broken for one image of two", func(f *Facts) {
			f.Now, f.BreakGlass = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), "fire"
			agree(f, "freeze")
			f.Images[1].Agreed = f.Images[1].Agreed[:2]
		}, "freeze"},
		{"freeze broken", func(f *Facts) {
			f.Now, f.BreakGlass = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), "fire"
			agree(f, "freeze")
		}, ""},
		{"results without signers", func(f *Facts) {
			f.Environment.Gates = pipeline.Gates{Evidence: []pipeline.Evidence{pipeline.TestResult}}
			f.Images[0].Found, f.Images[1].Found = nil, nil
		}, "api/tests web/tests"},
		{"nothing is asked for", func(f *Facts) {
			*f.Environment = pipeline.Environment{Name: "test"}
			f.Images[0].Found, f.Images[0].Agreed, f.Images[0].Ran = nil, nil, nil
		}, ""},
	} {
		f := facts()
		c.change(&f)
		table := Check(f)
		if got := shut(table); got != c.shut || table.Open() != (c.shut == "") {
			t.Errorf("%s: shut are %q, want %q", c.name, got, c.shut)
		}
		for _, r := range table.Rows {
			if !r.Passed && r.Missing == "" {
				t.Errorf("%s: %s does not say what is missing", c.name, r.Gate)
			}
		}
	}
}

// TestLessNeverOpens: whatever is taken away of what shows something, what was
// shut stays shut.
func TestLessNeverOpens(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	opened := 0
	for range 1000 {
		f := facts()
		thin(random, &f) // something is missing already, mostly
		before := shut(Check(f))
		if before == "" {
			opened++
		}
		thin(random, &f)
		after := strings.Fields(shut(Check(f)))
		for _, gate := range strings.Fields(before) {
			if !slices.Contains(after, gate) {
				t.Fatalf("%s was shut and opened: %+v", gate, f)
			}
		}
	}
	if opened == 0 {
		t.Error("no table was open to begin with: nothing was shown")
	}
}

// thin takes away, each with some chance, one thing of each kind.
func thin(random *rand.Rand, f *Facts) {
	im := &f.Images[random.IntN(len(f.Images))]
	if n := len(im.Found); n > 0 && random.IntN(3) == 0 {
		i := random.IntN(n)
		im.Found = slices.Delete(slices.Clone(im.Found), i, i+1)
	}
	if n := len(im.Agreed); n > 0 && random.IntN(3) == 0 {
		i := random.IntN(n)
		im.Agreed = slices.Delete(slices.Clone(im.Agreed), i, i+1)
	}
	if random.IntN(4) == 0 {
		im.Ran = nil
	}
	if random.IntN(4) == 0 {
		im.Where = ""
	}
	if random.IntN(4) == 0 {
		for s, e := range im.Expected {
			e.Authors = nil
			im.Expected[s] = e
		}
	}
	if random.IntN(6) == 0 {
		im.Expected = nil
	}
}

func TestFreeze(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	weekend := pipeline.Freeze{Start: "Fri 17:00", End: "Mon 08:00", TZ: "Europe/Berlin"}
	for _, c := range []struct {
		f     pipeline.Freeze
		at    time.Time
		until string // empty: not frozen
	}{
		{weekend, time.Date(2026, 11, 27, 16, 59, 59, 0, berlin), ""},
		{weekend, time.Date(2026, 11, 27, 17, 0, 0, 0, berlin), "2026-11-30T08:00:00+01:00"},
		{weekend, time.Date(2026, 11, 30, 7, 59, 59, 0, berlin), "2026-11-30T08:00:00+01:00"},
		{weekend, time.Date(2026, 11, 30, 8, 0, 0, 0, berlin), ""},
		// Over the weekends on which the clocks are moved.
		{weekend, time.Date(2026, 3, 28, 12, 0, 0, 0, berlin), "2026-03-30T08:00:00+02:00"},
		{weekend, time.Date(2026, 10, 24, 12, 0, 0, 0, berlin), "2026-10-26T08:00:00+01:00"},
		// It begins in an hour that is left out, and ends in one that comes twice.
		{pipeline.Freeze{Start: "Sun 02:30", End: "Sun 04:00", TZ: "Europe/Berlin"}, time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC), "2026-03-29T04:00:00+02:00"},
		{pipeline.Freeze{Start: "Sun 01:00", End: "Sun 02:30", TZ: "Europe/Berlin"}, time.Date(2026, 10, 25, 0, 15, 0, 0, time.UTC), "2026-10-25T02:30:00+02:00"},
		{pipeline.Freeze{Start: "Sun 01:00", End: "Sun 02:30", TZ: "Europe/Berlin"}, time.Date(2026, 10, 25, 1, 15, 0, 0, time.UTC), "2026-10-25T02:30:00+01:00"},
		{pipeline.Freeze{Start: "Sat 22:00", End: "Sun 02:00", TZ: "UTC"}, time.Date(2026, 11, 29, 1, 59, 0, 0, time.UTC), "2026-11-29T02:00:00Z"},
		{pipeline.Freeze{Start: "Mon 00:00", End: "Mon 00:00", TZ: "UTC"}, noon, "never"},
	} {
		in, until, err := frozen(c.f, c.at)
		got := ""
		switch {
		case err != nil:
			got = err.Error()
		case in && until.IsZero():
			got = "never"
		case in:
			got = until.Format(time.RFC3339)
		}
		if got != c.until {
			t.Errorf("%+v at %s: until %q, want %q", c.f, c.at, got, c.until)
		}
	}
}

func TestSetImage(t *testing.T) {
	d := digest.FromString("new")
	for _, c := range []struct{ file, before, after string }{
		{"compose.yml", "services:\n  web: {image: \"r.example/web:1\"} # the web\n  db: {image: r.example/db:1}\n", "services:\n  web: {image: \"r.example/web@NEW\"} # the web\n  db: {image: r.example/db:1}\n"},
		{"k8s.yaml", "kind: A\n---\nspec:\n  containers:\n  - name: web\n    image: r.example/web@sha256:" + strings.Repeat("0", 64) + "\n---\nkind: B\n", "kind: A\n---\nspec:\n  containers:\n  - name: web\n    image: r.example/web@NEW\n---\nkind: B\n"},
		{"kustomization.yaml", "images:\n- name: web\n  newName: r.example/web\n", "images:\n- name: web\n  newName: r.example/web\n  digest: \"NEW\"\n"},
		{"prod.env", "# x\nWEB=r.example/web:1 # y\nDB=r.example/db\n", "# x\nWEB=r.example/web@NEW # y\nDB=r.example/db\n"},
		{"anchors.yml", "a: {image: &i r.example/web:1}\nb: {image: *i}\n", "error"},
		{"none.yml", "image: r.example/website:1\n", "image: r.example/website:1\n"},
	} {
		got, n, err := setImage(c.file, []byte(c.before), "r.example/web", d)
		want := strings.ReplaceAll(c.after, "NEW", d.String())
		if err != nil {
			if c.after != "error" {
				t.Errorf("%s: %v", c.file, err)
			}
			continue
		}
		if string(got) != want || (n > 0) != (c.before != c.after) {
			t.Errorf("%s: %d places, got\n%s\nwant\n%s", c.file, n, got, want)
		}
		found, err := imagesIn(c.file, got, "r.example/web")
		if err != nil || n > 0 && fmt.Sprint(found) != fmt.Sprint([]digest.Digest{d}) {
			t.Errorf("%s: found %v, %v", c.file, found, err)
		}
	}
}
