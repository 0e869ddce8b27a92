package promote

import (
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/attest"
	"slipway/pipeline"
)

// Facts are all that gates are decided by. Whoever gathers them has checked the
// signatures; nothing in them is the word of the commit under test.
type Facts struct {
	Now         time.Time
	Promotion   string                // ID of what is asked for
	Environment *pipeline.Environment // as the protected branch has it
	Actor       string                // who asks
	BreakGlass  string                // why the actor wants gates set aside; empty: he does not
	Images      []ImageFacts
}

// ImageFacts are about one image that is to be promoted.
type ImageFacts struct {
	Name     string
	Matrix   map[string]string // of the environment's choice
	Digest   digest.Digest
	Where    string // the repository it was found in; empty: in none that was asked
	Found    []attest.Verified
	Ignored  []string // attestations that do not count, and why
	Expected map[attest.Source]Expected
	Agreed   []Agreement
	Ran      []Stretch // in the environments it may come from
}

// Expected is what the source's repository says about an attested commit.
type Expected struct {
	attest.Expected
	Tests   []string // that the pipeline there defines for the image
	Authors []string // email addresses of who wrote the commit
}

// Agreement is an approval or a break-glass, signed by a key that the
// environment lists under approvals.
type Agreement struct {
	By        string // the key's name: its file without .pub
	Key       string // its ID
	Email     string // of whose key it is; empty: unknown
	Signed    time.Time
	Statement attest.Predicate // an Approval or a BreakGlass
	Digest    digest.Digest    // of the attestation
}

// Stretch is a time in which an environment ran an image.
type Stretch struct {
	Environment string
	From, To    time.Time // To is zero while it lasts
	Failed      bool      // it ended because a check after delivery failed
}
