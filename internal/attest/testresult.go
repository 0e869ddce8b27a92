package attest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// TestResultType is in-toto's test-result predicate.
// https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md
const TestResultType = "https://in-toto.io/attestation/test-result/v0.1"

// TestResult says what one test of a pipeline came to on an image.
type TestResult struct {
	Passed bool
	Source Source

	File       digest.Digest // of the pipeline file's bytes
	Plan       digest.Digest // of the pipeline expanded for the event, with nothing left out
	Build      digest.Digest // pipeline.Plan.Definition of the image's build
	Definition digest.Digest // pipeline.Plan.Definition of the test
	Fixtures   digest.Digest // of the directories it mounted; empty where it mounted none
	Services   []Service     // that ran beside it, sorted by name

	Task   string // in the plan: "api[python=3.12]/unit"
	Image  string // in the pipeline: "api"
	Matrix map[string]string
	Test   string // "unit"

	Run        string // ID of the run that says so
	ReusedFrom string // ID of the run that ran it, where that was an earlier one
	Attempts   int
	Flaky      bool // it passed after it had failed
	Started    time.Time
	Finished   time.Time
	Signed     time.Time
	URL        string // where its log can be read; may be empty

	// Supersedes are the digests of FAILED attestations of the same test on the
	// same image that this one, being PASSED, puts an end to.
	Supersedes []digest.Digest
}

// Service is the image of a service that ran beside a test.
type Service struct {
	Name      string // in the pipeline
	Reference string // as the pipeline names its image
	Digest    digest.Digest
}

// The results that slipway signs.
const (
	resultPassed = "PASSED"
	resultFailed = "FAILED"
)

// testResult is a TestResult in JSON: in-toto's fields, and slipway's in one of
// its own.
type testResult struct {
	Result        string     `json:"result"`
	Configuration []resource `json:"configuration"`
	URL           string     `json:"url,omitempty"`
	PassedTests   []string   `json:"passedTests"`
	WarnedTests   []string   `json:"warnedTests"`
	FailedTests   []string   `json:"failedTests"`
	Record        testRecord `json:"slipway_record"`
}

type testRecord struct {
	Task       string            `json:"task"`
	Image      string            `json:"image"`
	Matrix     map[string]string `json:"matrix,omitempty"`
	Test       string            `json:"test"`
	Event      event             `json:"event"`
	Run        string            `json:"run"`
	ReusedFrom string            `json:"reusedFrom,omitempty"`
	Attempts   int               `json:"attempts"`
	Flaky      bool              `json:"flaky"`
	StartedOn  stamp             `json:"startedOn"`
	FinishedOn stamp             `json:"finishedOn"`
	SignedOn   stamp             `json:"signedOn"`
	Supersedes []digest.Digest   `json:"supersedes,omitempty"`
}

// Names in a test result's configuration, in the order they stand there.
const (
	ofCommit   = "commit"
	ofPipeline = "pipeline"
	ofPlan     = "plan"
	ofBuild    = "build"
	ofTest     = "test"
	ofFixtures = "fixtures"
	ofService  = "service/" // and its name
)

// Type is TestResultType.
func (TestResult) Type() string { return TestResultType }

func (t TestResult) signed() time.Time { return t.Signed }

func (t TestResult) wire() any {
	w := testResult{
		Result: resultFailed, URL: t.URL, PassedTests: []string{}, WarnedTests: []string{}, FailedTests: []string{},
		Configuration: []resource{
			{ofCommit, t.Source.Repository, digestSet{gitCommit: t.Source.Commit}},
			{ofPipeline, t.Source.Pipeline, sha256Set(t.File)},
			{Name: ofPlan, Digest: sha256Set(t.Plan)},
			{Name: ofBuild, Digest: sha256Set(t.Build)},
			{Name: ofTest, Digest: sha256Set(t.Definition)},
		},
		Record: testRecord{
			Task: t.Task, Image: t.Image, Matrix: t.Matrix, Test: t.Test, Event: event{t.Source.Event, t.Source.Ref, t.Source.Base},
			Run: t.Run, ReusedFrom: t.ReusedFrom, Attempts: t.Attempts, Flaky: t.Flaky,
			StartedOn: stampOf(t.Started), FinishedOn: stampOf(t.Finished), SignedOn: stampOf(t.Signed), Supersedes: t.Supersedes,
		},
	}
	if t.Fixtures != "" {
		w.Configuration = append(w.Configuration, resource{Name: ofFixtures, Digest: sha256Set(t.Fixtures)})
	}
	for _, s := range t.Services {
		w.Configuration = append(w.Configuration, resource{ofService + s.Name, s.Reference, sha256Set(s.Digest)})
	}
	if t.Passed {
		w.Result, w.PassedTests = resultPassed, []string{t.Test}
	} else {
		w.FailedTests = []string{t.Test}
	}
	return w
}

func (w testResult) predicate() (Predicate, error) {
	r := w.Record
	t := TestResult{
		Passed: w.Result == resultPassed, URL: w.URL, Source: Source{Event: r.Event.Kind, Ref: r.Event.Ref, Base: r.Event.Base},
		Task: r.Task, Image: r.Image, Matrix: r.Matrix, Test: r.Test,
		Run: r.Run, ReusedFrom: r.ReusedFrom, Attempts: r.Attempts, Flaky: r.Flaky, Supersedes: r.Supersedes,
	}
	if !t.Passed && w.Result != resultFailed {
		return nil, fmt.Errorf("its result is %q, neither %s nor %s", w.Result, resultPassed, resultFailed)
	}
	for _, c := range w.Configuration {
		t.read(c)
	}
	if t.File == "" || t.Plan == "" || t.Build == "" || t.Definition == "" {
		return nil, errors.New("its configuration lacks the pipeline, the plan, the build or the test")
	}
	if t.Test == "" || t.Image == "" || t.Task == "" {
		return nil, errors.New("it does not name its test")
	}
	for _, s := range t.Services {
		if s.Digest == "" {
			return nil, fmt.Errorf("it names no digest of the service %s", s.Name)
		}
	}
	for _, d := range t.Supersedes {
		if d.Validate() != nil {
			return nil, fmt.Errorf("it supersedes %q, which is not a digest", d)
		}
	}
	if len(t.Supersedes) > 0 && !t.Passed {
		return nil, errors.New("a FAILED result supersedes nothing")
	}
	if t.Flaky && !t.Passed {
		return nil, errors.New("a FAILED result is not flaky")
	}
	err := readTimes(
		timed{&t.Started, r.StartedOn}, timed{&t.Finished, r.FinishedOn}, timed{&t.Signed, r.SignedOn},
	)
	return t, errors.Join(err, t.Source.check())
}

// read takes one item of the configuration. What it does not know, or finds
// twice, is lost, and the claim then no longer encodes to the same bytes.
func (t *TestResult) read(c resource) {
	switch c.Name {
	case ofCommit:
		t.Source.Repository, t.Source.Commit = c.URI, c.Digest[gitCommit]
	case ofPipeline:
		t.Source.Pipeline, t.File = c.URI, c.Digest.sha256()
	case ofPlan:
		t.Plan = c.Digest.sha256()
	case ofBuild:
		t.Build = c.Digest.sha256()
	case ofTest:
		t.Definition = c.Digest.sha256()
	case ofFixtures:
		t.Fixtures = c.Digest.sha256()
	default:
		if name, ok := strings.CutPrefix(c.Name, ofService); ok {
			t.Services = append(t.Services, Service{name, c.URI, c.Digest.sha256()})
		}
	}
}

// supersedes says whether t puts an end to the FAILED attestation f.
func (t TestResult) supersedes(f Verified) bool {
	failed, ok := f.Predicate.(TestResult)
	return ok && t.follows(failed) && slices.Contains(t.Supersedes, f.Digest)
}

type timed struct {
	to   *time.Time
	from stamp
}

func readTimes(all ...timed) error {
	for _, x := range all {
		t, err := x.from.time()
		if err != nil {
			return err
		}
		*x.to = t
	}
	return nil
}

// Superseding gives t with the names of all FAILED results among found that it,
// being a later pass of the same test, puts an end to.
func (t TestResult) Superseding(found []Verified) TestResult {
	t.Supersedes = nil
	for _, v := range found {
		if f, ok := v.Predicate.(TestResult); ok && t.follows(f) {
			t.Supersedes = append(t.Supersedes, v.Digest)
		}
	}
	slices.Sort(t.Supersedes)
	return t
}

// follows says whether t is a pass of the test that failed as f says, not before it.
func (t TestResult) follows(f TestResult) bool {
	return t.Passed && !f.Passed && !stampOf(t.Finished).before(stampOf(f.Finished)) &&
		taskKey(t.Image, t.Matrix, t.Test) == taskKey(f.Image, f.Matrix, f.Test)
}

// Same finds the attestation that says already what p would say again: of a
// build, that the same source gave this image; of a test whose result is reused,
// that the same source has it.
func Same(found []Verified, p Predicate) (digest.Digest, bool) {
	for _, v := range found {
		if same(v.Predicate, p) {
			return v.Digest, true
		}
	}
	return "", false
}

func same(old, p Predicate) bool {
	switch p := p.(type) {
	case Provenance:
		o, ok := old.(Provenance)
		return ok && o.Source == p.Source && o.Plan == p.Plan && o.Build == p.Build && o.Task == p.Task && slices.Equal(o.Bases, p.Bases)
	case TestResult:
		o, ok := old.(TestResult)
		return ok && p.Passed && o.Passed && p.ReusedFrom != "" && !o.Flaky && o.Source == p.Source && o.Plan == p.Plan &&
			o.Definition == p.Definition && o.Task == p.Task && o.Fixtures == p.Fixtures && slices.Equal(o.Services, p.Services) &&
			!slices.ContainsFunc(p.Supersedes, func(d digest.Digest) bool { return !slices.Contains(o.Supersedes, d) })
	}
	return false
}
