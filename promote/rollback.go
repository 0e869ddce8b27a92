package promote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
)

// RollbackRequest asks for what an environment ran before.
type RollbackRequest struct {
	Environment string
	To          string // ID of a promotion, or a commit of its history; empty: what ran before what runs now
	Actor       string
}

// PlanRollback says what going back would do. No gate is asked: it has passed
// them all before, and whoever goes back has no time.
func (p *Promoter) PlanRollback(ctx context.Context, r RollbackRequest) (*Plan, error) {
	state, err := p.Environments.Read(ctx)
	if err != nil {
		return nil, err
	}
	return p.rollbackAt(ctx, state, Request{Environment: r.Environment, Actor: r.Actor}, r, "")
}

func (p *Promoter) rollbackAt(ctx context.Context, state State, request Request, r RollbackRequest, base string) (*Plan, error) {
	file, err := state.File(r.Environment)
	if err != nil {
		return nil, err
	}
	history, err := state.History(r.Environment)
	if err != nil {
		return nil, err
	}
	if base != "" && base != history[0].Commit {
		return nil, &Lost{r.Environment, history[0]}
	}
	to, err := target(history, r)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Environment: r.Environment, request: request, state: state, file: file, Base: history[0].Commit, rollback: r, Table: Table{Rows: []Row{}}}
	plan.request.Images = nil
	for _, name := range slices.Sorted(maps.Keys(to.Runs)) {
		if _, still := file.Environment.Images[name]; still {
			plan.request.Images = append(plan.request.Images, Wanted{Name: name, Digest: to.Runs[name]})
		}
	}
	plan.Promotion = identify(r.Environment, plan.Base, plan.request.Images)
	if plan.Images = changed(runs(file), plan.request.Images); len(plan.Images) == 0 {
		return plan, nil
	}
	if err := p.change(ctx, plan); err != nil {
		return nil, err
	}
	plan.record = Record{
		ID: plan.Promotion, Kind: RolledBack, Environment: r.Environment, Images: plan.Images, Actor: r.Actor, Config: state.Commit, Of: history[0].ID,
	}
	return plan, nil
}

// target finds the entry that is gone back to.
func target(history []Entry, r RollbackRequest) (Entry, error) {
	if r.To == "" {
		to, ok := before(history)
		if !ok || len(to.Runs) == 0 {
			return Entry{}, mistake("nothing ran in %s before; `slipway env history %s` shows what did", r.Environment, r.Environment)
		}
		return to, nil
	}
	for _, e := range history {
		if (e.ID == r.To || len(r.To) >= 7 && len(e.Commit) >= len(r.To) && e.Commit[:len(r.To)] == r.To) && len(e.Runs) > 0 {
			return e, nil
		}
	}
	return Entry{}, mistake("%s had no promotion %s; `slipway env history %s` lists them", r.Environment, r.To, r.Environment)
}

// Rollback does what a plan of PlanRollback says.
func (p *Promoter) Rollback(ctx context.Context, shown *Plan) (Outcome, error) {
	j, err := p.open(ctx, shown.Environment)
	if err != nil {
		return Outcome{}, err
	}
	defer j.Close()
	state, err := p.Environments.Read(ctx)
	if err != nil {
		return Outcome{}, err
	}
	plan, err := p.rollbackAt(ctx, state, shown.request, shown.rollback, shown.Base)
	if err != nil {
		return Outcome{}, p.auditLost(shown.record, err)
	}
	if plan.Nothing() {
		return p.unchanged(ctx, plan)
	}
	if err := p.stillThere(ctx, plan); err != nil {
		return Outcome{}, err
	}
	return p.begin(ctx, j, plan)
}

// stillThere makes sure that what is gone back to can be delivered.
func (p *Promoter) stillThere(ctx context.Context, plan *Plan) error {
	g := &gathering{Promoter: p, state: plan.state, file: plan.file}
	plan.images = nil
	for _, w := range plan.request.Images {
		at, err := g.locate(ctx, w)
		if err != nil {
			return err
		}
		if at.repo == nil && slices.ContainsFunc(plan.Images, func(c ImageChange) bool { return c.Name == w.Name }) {
			return errors.New("roll back " + plan.Environment + ": " + gone(w.Name, w.Digest))
		}
		plan.images = append(plan.images, at)
	}
	return nil
}

func gone(name string, d digest.Digest) string {
	return fmt.Sprintf("no repository has %s@%s any more; push it there again, or promote something else", name, d)
}
