package pipeline

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Environment is a checked environment file: what runs in one place, with which
// configuration, and what an image must have proved to run there.
type Environment struct {
	Name        string
	From        []string // environments an image comes from, for `promote NAME --from`
	Images      map[string]EnvironmentImage
	Environment map[string]string
	Secrets     map[string]Secret
	Gates       Gates
	Auto        *Auto // nil: a person promotes
	Deliver     Deliver
	Verify      *Verify // nil: nothing is checked after delivery
}

// EnvironmentImage is the image that runs in an environment under a pipeline's image name.
type EnvironmentImage struct {
	Matrix     map[string]string // which of the pipeline's combinations; nil without a matrix
	Repository string            // where it is pushed to; empty: it stays in slipway's own store
	Digest     digest.Digest     // what runs; empty before the first promotion
}

// Secret says where a value is found, never the value. Exactly one field is set.
type Secret struct {
	File    string   // path on the machine that delivers
	Env     string   // variable of the process that delivers
	Command []string // prints it
	Age     string   // age-encrypted file beside the environment file
}

// Gates are what an image must pass before it runs in an environment. The zero
// value asks for nothing but the protected branch's own file.
type Gates struct {
	Branch    string   // the tested commit must be on it
	Signers   []string // public keys, relative to the environment file
	Tests     []string // tests that a signer attests as passed
	Evidence  []Evidence
	Approvals *Approvals
	Soak      time.Duration // at least this long in an environment it comes from
	Freeze    []Freeze
	Flaky     Flaky // empty means FlakyDeny
}

// Evidence is a kind of attestation.
type Evidence string

// The evidence a gate can ask for.
const (
	TestResult Evidence = "test-result"
	Provenance Evidence = "provenance"
)

// Flaky says what a pass after a failure is worth.
type Flaky string

// The answers to a flaky test.
const (
	FlakyDeny  Flaky = "deny"
	FlakyAllow Flaky = "allow"
)

// Approvals are people who must agree.
type Approvals struct {
	Count int
	From  []string // roles or keys
	Not   string   // "author": whoever wrote the commit does not count; empty: anyone
}

// Freeze is a weekly time in which nothing is promoted.
type Freeze struct {
	Start, End string // "Fri 17:00"
	TZ         string // of the time zone database; UTC by default
}

// Auto promotes by itself after a green run on Branch.
type Auto struct{ Branch string }

// Deliver says how an environment gets its images.
type Deliver struct {
	Kind   string         // "local", "compose", "swarm", "git" or "kubernetes"; empty: only the file is written
	Config map[string]any // of that kind; strings, bools, int64, float64, []any and map[string]any
}

// Verify is a check after delivery.
type Verify struct {
	Command   []string
	Timeout   time.Duration
	OnFailure string // "rollback" or "keep"
}

// ParseEnvironment reads an environment file. name is the file's name for
// errors; the error is an Errors.
func ParseEnvironment(name string, data []byte) (*Environment, error) {
	errs := newProblems(name, data)
	root := load(data, errs)
	if root == nil {
		return nil, errs.err()
	}
	left := maxValues
	d := &decoder{errs: errs, left: &left, scope: scope{never: "an environment file has no events and no matrix; write the value, or $${{ for the text itself"}}
	f := environmentCodec.decode(d, root)
	checkEnvironment(d, root, f)
	if err := errs.err(); err != nil {
		return nil, err
	}
	return f.environment(), nil
}
