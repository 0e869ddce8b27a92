package promote

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/attest"
	"slipway/pipeline"
)

// Names of gates in a table.
const (
	gateImage     = "image"
	gateFrom      = "from"
	gateBranch    = "branch"
	gateTests     = "tests"
	gateEvidence  = "evidence"
	gateApprovals = "approvals"
	gateSoak      = "soak"
	gateFreeze    = "freeze"
)

// breakable are the gates that a second person may set aside. Which image it is
// and which repository and branch it comes from is not a matter of haste.
var breakable = []string{gateFrom, gateTests, gateApprovals, gateSoak, gateFreeze}

// Row is one thing that was asked for.
type Row struct {
	Gate     string        `json:"gate"`
	Image    string        `json:"image,omitempty"` // empty: it is about all of them
	Asked    string        `json:"asked"`
	Passed   bool          `json:"passed"`
	SetAside string        `json:"set_aside,omitempty"` // by whom, where it did not pass and somebody broke the glass
	Shown    string        `json:"shown,omitempty"`     // what shows it
	Missing  string        `json:"missing,omitempty"`
	Next     string        `json:"next,omitempty"` // what to do about it
	By       digest.Digest `json:"by,omitempty"`   // of the attestation that shows it
}

// Table says for each gate: passed, or what is missing.
type Table struct {
	Rows    []Row                    `json:"rows"`
	Sources map[string]attest.Source `json:"-"` // by image: the commit that the evidence is about
}

// Open says whether everything may pass.
func (t Table) Open() bool {
	return !slices.ContainsFunc(t.Rows, func(r Row) bool { return !r.Passed && r.SetAside == "" })
}

// Evidence lists the attestations that the table rests on, each once, sorted.
func (t Table) Evidence() []digest.Digest {
	var all []digest.Digest
	for _, r := range t.Rows {
		if r.By != "" {
			all = append(all, r.By)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Check decides. It is a pure function: the same facts give the same table, and
// taking away what shows something (a passed test, an approval, a stretch) never
// opens a gate that was shut.
func Check(f Facts) Table {
	c := checking{Facts: f, table: Table{Sources: map[string]attest.Source{}}}
	for _, im := range f.Images {
		c.image(im)
	}
	c.freeze()
	for _, im := range f.Images {
		c.breakGlass(im)
	}
	c.sealAll()
	return c.table
}

type checking struct {
	Facts
	table  Table
	broken map[string]map[string]string // image → gate → by whom it may be set aside
}

func (c *checking) add(r Row) { c.table.Rows = append(c.table.Rows, r) }

func (c *checking) image(im ImageFacts) {
	row := Row{Gate: gateImage, Image: im.Name, Asked: "exactly this digest is in a repository", Passed: im.Where != "", Shown: im.Where}
	if !row.Passed {
		row.Missing = fmt.Sprintf("no repository that was asked has %s", im.Digest)
		row.Next = "name it with its repository: REPOSITORY@" + im.Digest.String()
	}
	c.add(row)
	c.from(im)
	source := c.evidence(im)
	c.approvals(im, source)
	c.soak(im)
}

func (c *checking) ref(im ImageFacts) string { return im.Name + "@" + im.Digest.String() }

// from asks whether the image has run where it must come from.
func (c *checking) from(im ImageFacts) {
	from := c.Environment.From
	if len(from) == 0 {
		return
	}
	row := Row{Gate: gateFrom, Image: im.Name, Asked: "it has run in " + strings.Join(from, " or ")}
	for _, s := range im.Ran {
		if slices.Contains(from, s.Environment) && !s.Failed {
			row.Passed, row.Shown = true, s.String()
		}
	}
	if !row.Passed {
		row.Missing = "it has not run there"
		if len(im.Ran) > 0 {
			row.Missing = "it ran there and failed its verification"
		}
		row.Next = fmt.Sprintf("slipway promote %s --to %s", c.ref(im), from[0])
	}
	c.add(row)
}

func (s Stretch) String() string {
	if s.To.IsZero() {
		return fmt.Sprintf("in %s since %s", s.Environment, s.From.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("in %s from %s to %s", s.Environment, s.From.UTC().Format(time.RFC3339), s.To.UTC().Format(time.RFC3339))
}

// evidence asks for signed claims, and gives the commit that they are about.
func (c *checking) evidence(im ImageFacts) attest.Source {
	if !c.asksForEvidence() {
		return attest.Source{}
	}
	g := c.Environment.Gates
	demand := attest.Demand{
		Image: im.Name, Matrix: im.Matrix, Tests: testsOf(g, im), AllowFlaky: g.Flaky == pipeline.FlakyAllow,
		// A branch or a signer is asked of something: without tests, of where the image comes from.
		Provenance: slices.Contains(g.Evidence, pipeline.Provenance) || len(g.Tests) == 0 && !slices.Contains(g.Evidence, pipeline.TestResult),
	}
	expected := map[attest.Source]attest.Expected{}
	for s, e := range im.Expected {
		expected[s] = e.Expected
	}
	table := attest.Check(im.Digest, demand, im.Found, expected)
	if g.Branch != "" {
		c.branch(im, table.Source)
	}
	if len(g.Tests) == 0 && slices.Contains(g.Evidence, pipeline.TestResult) && len(demand.Tests) == 0 {
		c.add(Row{
			Gate: gateTests, Image: im.Name, Asked: "every test that its pipeline has passed on exactly this digest",
			Missing: "no test of it is attested" + ignored(im), Next: "slipway run pipeline, on a clean commit",
		})
	}
	for _, r := range table.Rows {
		gate, next := gateTests, "run that test on this digest: slipway run pipeline, on a clean commit"
		if r.What == "provenance" {
			gate, next = gateEvidence, "build it with a key to sign with: slipway keys generate, then slipway run pipeline"
		}
		row := Row{Gate: gate, Image: im.Name, Asked: r.What, Passed: r.Missing == "", Missing: r.Missing, By: r.By}
		if row.Passed {
			row.Shown = fmt.Sprintf("attestation %.19s by key %s", r.By, r.Key.ID())
		} else {
			row.Missing, row.Next = row.Missing+ignored(im), next
		}
		c.add(row)
	}
	if table.Source != (attest.Source{}) {
		c.table.Sources[im.Name] = table.Source
	}
	return table.Source
}

func (c *checking) asksForEvidence() bool {
	g := c.Environment.Gates
	return g.Branch != "" || len(g.Signers) > 0 || len(g.Tests) > 0 || len(g.Evidence) > 0
}

// testsOf are the tests that must have passed on an image: those that the gate
// names, or, where it asks for results and names none, all that the newest
// commit that counts defines.
func testsOf(g pipeline.Gates, im ImageFacts) []string {
	var tests []string
	for _, t := range g.Tests {
		if image, test, one := strings.Cut(t, "/"); !one {
			tests = append(tests, t)
		} else if image == im.Name {
			tests = append(tests, test)
		}
	}
	if len(g.Tests) > 0 || !slices.Contains(g.Evidence, pipeline.TestResult) {
		return tests
	}
	for _, s := range attest.Sources(im.Found) {
		if e := im.Expected[s]; e.Refused == "" && len(e.Tests) > 0 {
			return e.Tests
		}
	}
	return nil
}

func ignored(im ImageFacts) string {
	if len(im.Ignored) == 0 {
		return ""
	}
	return "; not counted: " + strings.Join(im.Ignored, "; ")
}

func (c *checking) branch(im ImageFacts, s attest.Source) {
	row := Row{Gate: gateBranch, Image: im.Name, Asked: "the attested commit is on " + c.Environment.Gates.Branch}
	e, known := im.Expected[s]
	switch {
	case s == attest.Source{}:
		row.Missing = "no listed key attests a commit" + ignored(im)
		row.Next = "slipway run pipeline, on a clean commit of " + c.Environment.Gates.Branch
	case !known:
		row.Missing = "nobody has looked at commit " + s.Commit
	case e.Refused != "":
		row.Missing, row.Next = fmt.Sprintf("commit %.12s: %s", s.Commit, e.Refused), "merge it, then promote again"
	default:
		row.Passed, row.Shown = true, fmt.Sprintf("commit %.12s of %s", s.Commit, s.Repository)
	}
	c.add(row)
}

// approvals asks whether enough people agree.
func (c *checking) approvals(im ImageFacts, s attest.Source) {
	a := c.Environment.Gates.Approvals
	if a == nil {
		return
	}
	row := Row{Gate: gateApprovals, Image: im.Name, Asked: fmt.Sprintf("%d of %s", a.Count, strings.Join(a.From, ", "))}
	if a.Not != "" {
		row.Asked += ", not the " + a.Not
	}
	var who, why []string
	keys := map[string]bool{}
	for _, g := range im.Agreed {
		p, ok := g.Statement.(attest.Approval)
		if !ok || keys[g.Key] {
			continue
		}
		if no := c.approves(im, s, g, p); no != "" {
			why = append(why, g.By+": "+no)
			continue
		}
		keys[g.Key] = true
		who = append(who, g.By)
		if row.By == "" {
			row.By = g.Digest
		}
	}
	row.Passed, row.Shown = len(keys) >= a.Count, strings.Join(who, ", ")
	if !row.Passed {
		row.By = ""
		row.Missing = fmt.Sprintf("%d of %d", len(keys), a.Count)
		if len(why) > 0 {
			row.Missing += "; not counted: " + strings.Join(why, "; ")
		}
		row.Next = fmt.Sprintf("slipway approve %s --to %s --key FILE", c.ref(im), c.Environment.Name)
	}
	c.add(row)
}

// approves says why an approval does not count; empty: it does.
func (c *checking) approves(im ImageFacts, s attest.Source, g Agreement, p attest.Approval) string {
	switch {
	case p.Environment != c.Environment.Name:
		return "approves it for " + p.Environment
	case p.Promotion != "" && p.Promotion != c.Promotion:
		return "approves promotion " + p.Promotion
	case s != attest.Source{} && p.Commit != s.Commit:
		return fmt.Sprintf("looked at commit %.12s", p.Commit)
	}
	if c.Environment.Gates.Approvals.Not != "" {
		return c.author(im, s, g)
	}
	return ""
}

// author says why a person may be who wrote the commit; empty: he is not.
func (c *checking) author(im ImageFacts, s attest.Source, g Agreement) string {
	authors := im.Expected[s].Authors
	switch {
	case len(authors) == 0:
		return "nobody knows who wrote the commit"
	case g.Email == "":
		return fmt.Sprintf("nobody knows whose key it is; write # email: ADDRESS above the key in %s.pub", g.By)
	case slices.ContainsFunc(authors, func(a string) bool { return strings.EqualFold(a, g.Email) }):
		return "wrote the commit"
	}
	return ""
}

// soak asks how long the image has run where it comes from.
func (c *checking) soak(im ImageFacts) {
	want := c.Environment.Gates.Soak
	if want <= 0 {
		return
	}
	where := "the environment it comes from"
	if len(c.Environment.From) > 0 {
		where = strings.Join(c.Environment.From, " or ")
	}
	row := Row{Gate: gateSoak, Image: im.Name, Asked: fmt.Sprintf("%s in %s", short(want), where)}
	var longest time.Duration
	var ready time.Time
	for _, s := range im.Ran {
		end := s.To
		if end.IsZero() {
			end = c.Now
		}
		if s.Failed || !slices.Contains(c.Environment.From, s.Environment) {
			continue
		}
		if took := end.Sub(s.From); took >= longest {
			longest, row.Shown = took, s.String()
		}
		if s.To.IsZero() && (ready.IsZero() || s.From.Add(want).Before(ready)) {
			ready = s.From.Add(want)
		}
	}
	if row.Passed = longest >= want; !row.Passed {
		row.Shown, row.Missing = "", fmt.Sprintf("it ran there for %s", longest.Truncate(time.Second))
		row.Next = "promote it there first"
		if !ready.IsZero() {
			row.Next = "wait until " + ready.UTC().Format(time.RFC3339)
		}
	}
	c.add(row)
}

func (c *checking) freeze() {
	for _, f := range c.Environment.Gates.Freeze {
		row := Row{Gate: gateFreeze, Asked: fmt.Sprintf("not from %s to %s (%s)", f.Start, f.End, f.TZ)}
		in, until, err := frozen(f, c.Now)
		switch {
		case err != nil:
			row.Missing, row.Next = err.Error(), "correct it in the environment file"
		case in && until.IsZero():
			row.Missing = "it holds all week"
		case in:
			row.Missing, row.Next = "it is that time", "wait until "+until.Format(time.RFC3339)
		default:
			row.Passed = true
		}
		c.add(row)
	}
}

// breakGlass notes which gates a second person lets this image through.
func (c *checking) breakGlass(im ImageFacts) {
	if c.BreakGlass == "" {
		return
	}
	for _, g := range im.Agreed {
		p, ok := g.Statement.(attest.BreakGlass)
		if !ok || p.Environment != c.Environment.Name || p.Promotion != c.Promotion || c.same(g) {
			continue
		}
		if c.asksForEvidence() && c.author(im, c.table.Sources[im.Name], g) != "" {
			continue
		}
		for _, gate := range p.Gates {
			if !slices.Contains(breakable, gate) {
				continue
			}
			if c.broken == nil {
				c.broken = map[string]map[string]string{}
			}
			if c.broken[im.Name] == nil {
				c.broken[im.Name] = map[string]string{}
			}
			c.broken[im.Name][gate] = fmt.Sprintf("%s: %s", g.By, p.Reason)
		}
	}
}

// same says whether who signed may be who asks: then he is no second person.
func (c *checking) same(g Agreement) bool {
	_, address, _ := strings.Cut(c.Actor, "<")
	address = strings.TrimSuffix(address, ">")
	if address == "" {
		address = c.Actor
	}
	return g.Email == "" || strings.EqualFold(address, g.Email)
}

// sealAll writes into the rows what is set aside. What concerns all images is
// set aside only where it is for each of them.
func (c *checking) sealAll() {
	for i, r := range c.table.Rows {
		if r.Passed {
			continue
		}
		by := ""
		for _, im := range c.Images {
			if r.Image != "" && r.Image != im.Name {
				continue
			}
			if by = c.broken[im.Name][r.Gate]; by == "" {
				break
			}
		}
		c.table.Rows[i].SetAside = by
		if by == "" && c.BreakGlass != "" && slices.Contains(breakable, r.Gate) {
			c.table.Rows[i].Next = c.howToBreak(r)
		}
	}
}

func (c *checking) howToBreak(r Row) string {
	var refs []string
	for _, im := range c.Images {
		if r.Image == "" || r.Image == im.Name {
			refs = append(refs, c.ref(im))
		}
	}
	return fmt.Sprintf("a second person: slipway approve %s --to %s --break-glass %s --promotion %s --reason WHY --key FILE",
		strings.Join(refs, " "), c.Environment.Name, r.Gate, c.Promotion)
}
