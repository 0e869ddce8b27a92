package attest

import (
	"errors"
	"fmt"
	"time"
)

// Types of slipway's own claims. They are names, not addresses: docs/proofs.md
// says what stands in them.
const (
	ApprovalType   = "urn:slipway:approval:v1"
	BreakGlassType = "urn:slipway:break-glass:v1"
)

// Approval says that somebody wants an image in an environment. Who, is the key
// that signed it.
type Approval struct {
	Environment string
	Promotion   string // ID of the one promotion it is for; empty: any of this image to this environment
	Commit      string // that was looked at
	Comment     string // may be empty
	Signed      time.Time
}

type approval struct {
	Environment string `json:"environment"`
	Promotion   string `json:"promotion,omitempty"`
	Commit      string `json:"commit"`
	Comment     string `json:"comment,omitempty"`
	SignedOn    stamp  `json:"signedOn"`
}

// Type is ApprovalType.
func (Approval) Type() string { return ApprovalType }

func (a Approval) signed() time.Time { return a.Signed }

func (a Approval) wire() any {
	return approval{a.Environment, a.Promotion, a.Commit, a.Comment, stampOf(a.Signed)}
}

func (w approval) predicate() (Predicate, error) {
	if w.Environment == "" {
		return nil, errors.New("it names no environment")
	}
	if !objectID.MatchString(w.Commit) {
		return nil, fmt.Errorf("%q is not the object id of a commit", w.Commit)
	}
	a := Approval{Environment: w.Environment, Promotion: w.Promotion, Commit: w.Commit, Comment: w.Comment}
	return a, readTimes(timed{&a.Signed, w.SignedOn})
}

// BreakGlass says that somebody lets an image into an environment although its
// gates say no.
type BreakGlass struct {
	Environment string
	Promotion   string   // ID of the one promotion it is for
	Gates       []string // those that it sets aside
	Reason      string
	Signed      time.Time
}

type breakGlass struct {
	Environment string   `json:"environment"`
	Promotion   string   `json:"promotion"`
	Gates       []string `json:"gates"`
	Reason      string   `json:"reason"`
	SignedOn    stamp    `json:"signedOn"`
}

// Type is BreakGlassType.
func (BreakGlass) Type() string { return BreakGlassType }

func (b BreakGlass) signed() time.Time { return b.Signed }

func (b BreakGlass) wire() any {
	return breakGlass{b.Environment, b.Promotion, b.Gates, b.Reason, stampOf(b.Signed)}
}

func (w breakGlass) predicate() (Predicate, error) {
	if w.Environment == "" || w.Promotion == "" || w.Reason == "" || len(w.Gates) == 0 {
		return nil, errors.New("it must name an environment, a promotion, the gates it sets aside and a reason")
	}
	b := BreakGlass{Environment: w.Environment, Promotion: w.Promotion, Gates: w.Gates, Reason: w.Reason}
	return b, readTimes(timed{&b.Signed, w.SignedOn})
}
