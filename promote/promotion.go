package promote

import (
	"context"
	"errors"
	"fmt"

	"slipway/internal/git"
	"slipway/internal/registry"
)

// Promote does what a plan says, if it is still so and the gates are open. A
// gate that is shut is no error: the outcome is Refused, and the plan that was
// made anew says why. The error is a *Lost where somebody else was first. After
// any other error the journal is kept, and the next start finishes or undoes.
func (p *Promoter) Promote(ctx context.Context, shown *Plan) (Outcome, *Plan, error) {
	j, err := p.open(ctx, shown.Environment)
	if err != nil {
		return Outcome{}, shown, err
	}
	defer j.Close()
	request := shown.request
	request.Base = shown.Base
	plan, err := p.Plan(ctx, request)
	if err != nil {
		return Outcome{}, shown, p.auditLost(shown.Record(), err)
	}
	if plan.Nothing() {
		out, err := p.unchanged(ctx, plan)
		return out, plan, err
	}
	if !plan.Table.Open() {
		reason := plan.Table.reason()
		_, err := p.Audit().add(Event{At: p.Now(), What: Refused, Reason: reason}.of(plan.record))
		return Outcome{State: Refused, Promotion: plan.Promotion, Kind: Promoted, Environment: plan.Environment, Images: plan.Images, Reason: reason}, plan, err
	}
	out, err := p.begin(ctx, j, plan)
	return out, plan, err
}

// Record is what the commit of the plan says.
func (p *Plan) Record() Record { return p.record }

func (t Table) reason() string {
	for _, r := range t.Rows {
		if !r.Passed && r.SetAside == "" {
			return fmt.Sprintf("%s: %s: %s", r.Gate, r.Asked, r.Missing)
		}
	}
	return ""
}

// open locks an environment and ends what was cut off in it.
func (p *Promoter) open(ctx context.Context, environment string) (*journal, error) {
	j, err := openJournal(ctx, p.Dir, environment, true)
	if err != nil {
		return nil, err
	}
	if len(j.lines) > 0 {
		if _, err := p.carry(ctx, j, 0); err != nil {
			return nil, errors.Join(fmt.Errorf("finish what was cut off in %s: %w", environment, err), j.Close())
		}
	}
	return j, nil
}

func (p *Promoter) recoverOne(ctx context.Context, environment string) (*Outcome, error) {
	j, err := openJournal(ctx, p.Dir, environment, false)
	if errors.Is(err, errBusy) {
		return nil, nil //nolint:nilnil // somebody is at it
	}
	if err != nil {
		return nil, err
	}
	defer j.Close()
	if len(j.lines) == 0 {
		return nil, j.end() // nothing was begun
	}
	out, err := p.carry(ctx, j, 0)
	out.Resumed = true
	return &out, err
}

// unchanged delivers again what an environment should run already.
func (p *Promoter) unchanged(ctx context.Context, plan *Plan) (Outcome, error) {
	out := Outcome{State: Unchanged, Promotion: plan.Promotion, Kind: Promoted, Environment: plan.Environment, Images: []ImageChange{}, Commit: plan.Base}
	d, err := p.deliverer(plan.file)
	if err != nil {
		return out, err
	}
	return out, d.Deliver(ctx, delivery(plan.file, runs(plan.file), plan.Promotion, plan.state), p.out())
}

// begin writes down what is to be done, and does it.
func (p *Promoter) begin(ctx context.Context, j *journal, plan *Plan) (Outcome, error) {
	at, err := p.Audit().add(Event{At: p.Now(), What: "begin"}.of(plan.record))
	if err != nil {
		return Outcome{}, err
	}
	plan.record.Audit = at.String()
	if err := j.add(line{Step: stepBegin, At: p.Now(), Record: &plan.record}); err != nil {
		return Outcome{}, err
	}
	sent, err := p.copyImages(ctx, plan)
	if err != nil { // nothing was changed: no need to keep the journal
		_, a := p.Audit().add(Event{At: p.Now(), What: Undone, Reason: err.Error()}.of(plan.record))
		return Outcome{}, errors.Join(err, a, j.end())
	}
	if err := p.push(ctx, j, plan); err != nil {
		return Outcome{}, err
	}
	return p.carry(ctx, j, sent)
}

// copyImages brings the images, with what refers to them, to where the
// environment takes them from.
func (p *Promoter) copyImages(ctx context.Context, plan *Plan) (sent int64, err error) {
	for i, w := range plan.request.Images {
		from, to := plan.images[i], repositoryOf(w.Name, plan.file.Environment.Images[w.Name])
		if from.repo == nil || from.repo.Name() == to {
			continue
		}
		repo, err := p.Registries.Repository(to)
		if err != nil {
			return sent, err
		}
		copied, err := registry.Copy(ctx, from.repo, from.desc, repo, registry.CopyOptions{})
		if err != nil {
			return sent, err
		}
		p.say("copied %s@%s to %s: %d bytes sent, %d there already, %d referrers", w.Name, w.Digest, to, copied.Sent, copied.Saved, copied.Referrers)
		sent += copied.Sent
	}
	return sent, nil
}

// attempts is how often a commit is made anew because the branch moved on for
// reasons that have nothing to do with the environment.
const attempts = 20

// push puts the commit on the branch. Where it may be there, a stepPush stands in the journal.
func (p *Promoter) push(ctx context.Context, j *journal, plan *Plan) error {
	for range attempts {
		draft := p.draft(plan)
		proposal, err := p.Environments.Repository.Propose(draft)
		if err != nil {
			return errors.Join(err, p.undone(j, plan.record, err.Error()))
		}
		v := plan.file.Environment.Verify
		err = j.add(line{
			Step: stepPush, At: p.Now(), Record: &plan.record, Draft: &draft, Old: plan.file.Data, Commit: proposal.ID,
			Keep: v != nil && v.OnFailure == "keep",
		})
		if err != nil {
			return err
		}
		err = p.Environments.Repository.Push(ctx, p.Environments.Branch, proposal)
		var moved *git.Moved
		if denied := (*git.Denied)(nil); errors.As(err, &denied) {
			return errors.Join(err, p.undone(j, plan.record, err.Error()))
		}
		if !errors.As(err, &moved) {
			return err // also where it may have been done: the journal knows
		}
		record := plan.record
		next, err := p.again(ctx, plan)
		if err != nil {
			return errors.Join(p.auditLost(record, err), j.end())
		}
		next.record.Audit = record.Audit
		plan = next
	}
	return errors.Join(fmt.Errorf("%s of %s moves on faster than slipway can follow; promote again", p.Environments.Branch, p.Environments.Repository),
		p.undone(j, plan.record, "the branch moved on"))
}

// again makes a plan anew because the branch has moved. Where the environment
// itself has changed, that is a *Lost.
func (p *Promoter) again(ctx context.Context, old *Plan) (*Plan, error) {
	state, err := p.Environments.Read(ctx)
	if err != nil {
		return nil, err
	}
	if old.record.Kind == RolledBack {
		return p.rollbackAt(ctx, state, old.request, old.rollback, old.Base)
	}
	request := old.request
	request.Base = old.Base
	plan, err := p.planAt(ctx, state, request)
	if err != nil {
		return nil, err
	}
	if !plan.Table.Open() {
		return nil, &Shut{plan}
	}
	return plan, nil
}

// Shut says that a gate closed while a promotion was under way.
type Shut struct{ Plan *Plan }

func (s *Shut) Error() string {
	return fmt.Sprintf("promotion to %s refused: %s", s.Plan.Environment, s.Plan.Table.reason())
}

// auditLost notes a promotion that lost or was refused on the way, and gives err back.
func (p *Promoter) auditLost(r Record, err error) error {
	var lost *Lost
	var shut *Shut
	what := ""
	switch {
	case errors.As(err, &lost):
		what = "lost"
	case errors.As(err, &shut):
		what = Refused
	default:
		return err
	}
	_, a := p.Audit().add(Event{At: p.Now(), What: what, Reason: err.Error()}.of(r))
	return errors.Join(err, a)
}

func (p *Promoter) undone(j *journal, r Record, reason string) error {
	_, err := p.Audit().add(Event{At: p.Now(), What: Undone, Reason: reason}.of(r))
	return errors.Join(err, j.end())
}
