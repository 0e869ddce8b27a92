package pipeline

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Environment is a checked environment file: what runs in one place, with which
// configuration, and what an image must have proved to run there.
type Environment struct {
	Name        string                      `json:"name,omitzero"`
	Source      Source                      `json:"source,omitzero"` // of its images
	From        []string                    `json:"from,omitzero"`   // environments an image comes from, for `promote NAME --from`
	Images      map[string]EnvironmentImage `json:"images,omitzero"`
	Environment map[string]string           `json:"environment,omitzero"`
	Secrets     map[string]Secret           `json:"secrets,omitzero"`
	Gates       Gates                       `json:"gates,omitzero"`
	Auto        *Auto                       `json:"auto,omitzero"` // nil: a person promotes
	Deliver     Deliver                     `json:"deliver,omitzero"`
	Verify      *Verify                     `json:"verify,omitzero"` // nil: nothing is checked after delivery
}

// Source says which pipeline makes an environment's images. What another one has
// built and tested does not count, whoever signed it.
type Source struct {
	Repository string `json:"repository,omitzero"` // clone URL without credentials, or file:// and a directory
	Pipeline   string `json:"pipeline,omitzero"`   // path of the pipeline file in it; ".ci.yml" by default
}

// EnvironmentImage is the image that runs in an environment under a pipeline's image name.
type EnvironmentImage struct {
	Matrix     map[string]string `json:"matrix,omitzero"`     // which of the pipeline's combinations; nil without a matrix
	Repository string            `json:"repository,omitzero"` // where it is pushed to; empty: it stays in slipway's own store
	Digest     digest.Digest     `json:"digest,omitzero"`     // what runs; empty before the first promotion
}

// Secret says where a value is found, never the value. Exactly one field is set.
type Secret struct {
	File    string   `json:"file,omitzero"`    // path on the machine that delivers
	Env     string   `json:"env,omitzero"`     // variable of the process that delivers
	Command []string `json:"command,omitzero"` // prints it
	Age     string   `json:"age,omitzero"`     // age-encrypted file beside the environment file
}

// Gates are what an image must pass before it runs in an environment. The zero
// value asks for nothing but the protected branch's own file.
type Gates struct {
	Branch    string        `json:"branch,omitzero"`  // the tested commit must be on it
	Signers   []string      `json:"signers,omitzero"` // public keys, relative to the environment file
	Tests     []string      `json:"tests,omitzero"`   // that a signer attests as passed: "unit" of every image, "api/unit" of one
	Evidence  []Evidence    `json:"evidence,omitzero"`
	Approvals *Approvals    `json:"approvals,omitzero"`
	Soak      time.Duration `json:"soak,omitzero"` // at least this long in an environment it comes from
	Freeze    []Freeze      `json:"freeze,omitzero"`
	Flaky     Flaky         `json:"flaky,omitzero"` // empty means FlakyDeny
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
	Count int      `json:"count,omitzero"`
	From  []string `json:"from,omitzero"` // NAME is the key NAME.pub beside the environment file, or each key in the directory NAME
	Not   string   `json:"not,omitzero"`  // "author": whoever wrote the commit does not count; empty: anyone
}

// Freeze is a weekly time in which nothing is promoted.
type Freeze struct {
	Start string `json:"start,omitzero"` // "Fri 17:00"
	End   string `json:"end,omitzero"`
	TZ    string `json:"tz,omitzero"` // of the time zone database; UTC by default
}

// Auto promotes by itself after a green run on Branch.
type Auto struct {
	Branch string `json:"branch,omitzero"`
}

// Deliver says how an environment gets its images.
type Deliver struct {
	Kind   string         `json:"kind,omitzero"`   // "local", "compose", "swarm", "git" or "kubernetes"; empty: only the file is written
	Config map[string]any `json:"config,omitzero"` // of that kind; strings, bools, int64, float64, []any and map[string]any
}

// Verify is a check after delivery.
type Verify struct {
	Command   []string      `json:"command,omitzero"`
	Timeout   time.Duration `json:"timeout,omitzero"`
	OnFailure string        `json:"on_failure,omitzero"` // "rollback" or "keep"
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
