package promote

import (
	"context"
	"slices"
	"time"

	"slipway/internal/attest"
	"slipway/internal/registry"
)

// Assent is what a person signs about images that are to go to an environment.
type Assent struct {
	Comment    string
	BreakGlass []string // gates that are to be set aside; empty: it is an approval
	Promotion  string   // the one it is for; of an approval it may be empty
}

// Assented is one that was signed.
type Assented struct {
	Image      string `json:"image"`
	Digest     string `json:"digest"`
	Commit     string `json:"commit"`
	Statement  string `json:"attestation"`
	Repository string `json:"repository"`
}

// Approve signs that somebody wants the images of a plan in its environment, and
// attaches that to them.
func (p *Promoter) Approve(ctx context.Context, plan *Plan, a Assent, by attest.Signer) ([]Assented, error) {
	if plan.file.Environment.Gates.Approvals == nil {
		return nil, mistake("%s asks for no approvals; there is nothing to sign", plan.file.Path)
	}
	if plan.Nothing() {
		return nil, mistake("%s runs it already; there is nothing to approve", plan.Environment)
	}
	g, err := p.gathering(plan.state, plan.file)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(g.approvers, func(o approver) bool { return o.key.Equal(by.Key) }) {
		return nil, mistake("key %s is not among those that may approve for %s; %s lists them under gates.approvals", by.Key.ID(), plan.Environment, plan.file.Path)
	}
	for _, gate := range a.BreakGlass {
		if !slices.Contains(breakable, gate) {
			return nil, mistake("the gate %q cannot be set aside; those that can are %v", gate, breakable)
		}
	}
	var all []Assented
	for i, w := range plan.request.Images {
		at := plan.images[i]
		if at.repo == nil {
			return all, mistake("%s", gone(w.Name, w.Digest))
		}
		statement, commit, err := a.statement(plan, w, p.Now())
		if err != nil {
			return all, err
		}
		claim, err := by.Attest(ctx, at.desc, statement)
		if err != nil {
			return all, err
		}
		if err := attach(ctx, at.repo, claim); err != nil {
			return all, err
		}
		all = append(all, Assented{w.Name, w.Digest.String(), commit, claim.Descriptor.Digest.String(), at.repo.Name()})
	}
	return all, nil
}

func (a Assent) statement(plan *Plan, w Wanted, now time.Time) (attest.Predicate, string, error) {
	now = now.UTC().Truncate(time.Second)
	if len(a.BreakGlass) > 0 {
		return attest.BreakGlass{Environment: plan.Environment, Promotion: a.Promotion, Gates: a.BreakGlass, Reason: a.Comment, Signed: now}, "", nil
	}
	s, known := plan.Table.Sources[w.Name]
	if !known {
		return nil, "", mistake("no listed key attests which commit %s@%s is of: there is nothing to look at; run its pipeline first", w.Name, w.Digest)
	}
	return attest.Approval{Environment: plan.Environment, Promotion: a.Promotion, Commit: s.Commit, Comment: a.Comment, Signed: now}, s.Commit, nil
}

// attach puts a claim beside the image it is about.
func attach(ctx context.Context, repo registry.Repository, a attest.Attestation) error {
	config, empty := attest.EmptyConfig()
	layer, err := attest.Layer(a.Manifest)
	if err != nil {
		return err
	}
	if err := registry.PutBytes(ctx, repo, config, empty); err != nil {
		return err
	}
	if err := registry.PutBytes(ctx, repo, layer, a.Bundle); err != nil {
		return err
	}
	return repo.PutManifest(ctx, a.Descriptor, a.Manifest)
}
