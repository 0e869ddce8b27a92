package promote

import (
	"context"
	"errors"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/attest"
	"slipway/internal/registry"
)

// Assent is what a person signs about images that are to go to an environment.
type Assent struct {
	Comment    string
	BreakGlass []string // gates that are to be set aside; empty: it is an approval
	Promotion  string   // the one it is for; of an approval it may be empty
}

// Question is one image that a person is asked about.
type Question struct {
	Environment string             `json:"environment"`
	Image       string             `json:"image"`
	Subject     ocispec.Descriptor `json:"subject"`
	Commit      string             `json:"commit,omitempty"` // that it is of, as its proofs say; empty: nothing attests that
}

// Signed is a person's answer.
type Signed struct {
	Image    string `json:"image"`
	Manifest []byte `json:"manifest"`
	Bundle   []byte `json:"bundle"`
}

// Assented is one that was signed.
type Assented struct {
	Image      string `json:"image"`
	Digest     string `json:"digest"`
	Commit     string `json:"commit"`
	Statement  string `json:"attestation"`
	Repository string `json:"repository"`
	Key        string `json:"key"`
}

// Approve signs that somebody wants the images of a plan in its environment, and
// attaches that to them.
func (p *Promoter) Approve(ctx context.Context, plan *Plan, a Assent, by attest.Signer) ([]Assented, error) {
	questions, err := p.Questions(plan)
	if err != nil {
		return nil, err
	}
	signed, err := a.Sign(ctx, questions, p.Now(), by)
	if err != nil {
		return nil, err
	}
	return p.Attach(ctx, plan, signed)
}

// Questions are what a person is asked who is to approve a plan.
func (p *Promoter) Questions(plan *Plan) ([]Question, error) {
	if plan.file.Environment.Gates.Approvals == nil {
		return nil, mistake("%s asks for no approvals; there is nothing to sign", plan.file.Path)
	}
	if plan.Nothing() {
		return nil, mistake("%s runs it already; there is nothing to approve", plan.Environment)
	}
	var all []Question
	for i, w := range plan.request.Images {
		if plan.images[i].repo == nil {
			return nil, mistake("%s", gone(w.Name, w.Digest))
		}
		all = append(all, Question{plan.Environment, w.Name, plan.images[i].desc, plan.Table.Sources[w.Name].Commit})
	}
	return all, nil
}

// Sign answers questions with a person's key.
func (a Assent) Sign(ctx context.Context, questions []Question, now time.Time, by attest.Signer) ([]Signed, error) {
	for _, gate := range a.BreakGlass {
		if !slices.Contains(breakable, gate) {
			return nil, mistake("the gate %q cannot be set aside; those that can are %v", gate, breakable)
		}
	}
	now = now.UTC().Truncate(time.Second)
	var all []Signed
	for _, q := range questions {
		var statement attest.Predicate = attest.BreakGlass{Environment: q.Environment, Promotion: a.Promotion, Gates: a.BreakGlass, Reason: a.Comment, Signed: now}
		if len(a.BreakGlass) == 0 {
			if q.Commit == "" {
				return nil, mistake("no listed key attests which commit %s@%s is of: there is nothing to look at; run its pipeline first", q.Image, q.Subject.Digest)
			}
			statement = attest.Approval{Environment: q.Environment, Promotion: a.Promotion, Commit: q.Commit, Comment: a.Comment, Signed: now}
		}
		claim, err := by.Attest(ctx, q.Subject, statement)
		if err != nil {
			return nil, err
		}
		all = append(all, Signed{q.Image, claim.Manifest, claim.Bundle})
	}
	return all, nil
}

// Attach puts answers beside the images of a plan, each once it is what somebody
// who may approve has signed about exactly that image in that environment.
func (p *Promoter) Attach(ctx context.Context, plan *Plan, signed []Signed) ([]Assented, error) {
	questions, err := p.Questions(plan)
	if err != nil {
		return nil, err
	}
	g, err := p.gathering(plan.state, plan.file)
	if err != nil {
		return nil, err
	}
	var keys []attest.Key
	for _, o := range g.approvers {
		keys = append(keys, o.key)
	}
	if len(signed) != len(questions) {
		return nil, mistake("%d images are asked about, and %d answers are there", len(questions), len(signed))
	}
	all := make([]Assented, len(signed))
	claims := make([]attest.Attestation, len(signed))
	for i, s := range signed { // all of them, before any is attached
		if all[i], claims[i], err = questions[i].check(s, keys, p.Now()); err != nil {
			var refused *attest.Refusal
			switch {
			case errors.Is(err, attest.ErrUnlisted):
				err = mistake("the key that signed is not among those that may approve for %s; %s lists them under gates.approvals", plan.Environment, plan.file.Path)
			case errors.As(err, &refused):
				err = mistake("what was signed about %s does not count: %w", s.Image, err)
			}
			return nil, err
		}
		all[i].Repository = plan.images[i].repo.Name()
	}
	for i, c := range claims {
		if err := attach(ctx, plan.images[i].repo, c); err != nil {
			return all[:i], err
		}
	}
	return all, nil
}

// check says whether an answer is one to the question.
func (q Question) check(s Signed, keys []attest.Key, now time.Time) (Assented, attest.Attestation, error) {
	v, err := attest.Verify(q.Subject, s.Manifest, s.Bundle, keys, now)
	if err != nil {
		return Assented{}, attest.Attestation{}, err
	}
	out := Assented{Image: q.Image, Digest: q.Subject.Digest.String(), Statement: v.Digest.String(), Key: v.Key.ID()}
	environment, commit := "", q.Commit
	switch c := v.Predicate.(type) {
	case attest.Approval:
		environment, commit, out.Commit = c.Environment, c.Commit, c.Commit
	case attest.BreakGlass:
		environment = c.Environment
	}
	if s.Image != q.Image || environment != q.Environment || commit != q.Commit {
		return out, attest.Attestation{}, mistake("what was signed is not about %s of commit %.12s in %s; look again, and sign that", q.Image, q.Commit, q.Environment)
	}
	return out, attest.Attestation{
		Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: attest.MediaType, Digest: v.Digest, Size: int64(len(s.Manifest))},
		Manifest:   s.Manifest, Bundle: s.Bundle, Verified: v,
	}, nil
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
