package promote

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
)

// Proposal is a plan as it is shown to somebody who is not on this machine.
type Proposal struct {
	Plan        *Plan         `json:"plan"`
	Record      Record        `json:"record"` // what its commit would say
	Open        bool          `json:"open"`   // every gate is
	Fingerprint digest.Digest `json:"fingerprint"`
}

// Propose shows a plan. Two plans have the same fingerprint where they would do
// the same, to the same, for the same person, past the same gates: who agrees to
// the one agrees to the other. What shows that a gate is open may differ: a soak
// goes on, and a second proof of the same is no other promotion.
func (p *Plan) Propose() Proposal {
	type gate struct {
		Gate, Image, Asked, SetAside string
		Passed                       bool
	}
	about := struct {
		Plan   Plan
		Gates  []gate
		Record Record
	}{*p, nil, p.record}
	for _, r := range p.Table.Rows {
		about.Gates = append(about.Gates, gate{r.Gate, r.Image, r.Asked, r.SetAside, r.Passed})
	}
	about.Plan.Table, about.Record.Evidence, about.Record.Config = Table{}, nil, ""
	text, err := json.Marshal(about)
	if err != nil {
		panic("promote: a plan that is no JSON: " + err.Error()) // strings, digests and flags only
	}
	return Proposal{p, p.record, p.Table.Open(), digest.FromBytes(text)}
}
