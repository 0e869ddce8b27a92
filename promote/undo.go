package promote

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"slipway/internal/git"
)

// fail prepares to take a promotion back.
func (p *Promoter) fail(ctx context.Context, j *journal, reason string) error {
	pushed := mustFind(j, stepPush)
	r := *j.lines[0].Record
	if pushed.Keep {
		return &keptError{reason}
	}
	if r.Kind == RolledBack {
		return &keptError{reason + "; it was a rollback itself and is not taken back"}
	}
	p.say("%s: taking it back", reason)
	undo, err := p.undo(ctx, r, pushed, reason)
	if err != nil {
		return err
	}
	if undo == nil {
		return &keptError{reason + "; others have changed the environment since then, and nothing was taken back"}
	}
	return j.add(*undo)
}

// undo makes the commit that takes a promotion back; nil where there is nothing
// of it left.
func (p *Promoter) undo(ctx context.Context, r Record, pushed line, reason string) (*line, error) {
	state, file, err := p.now(ctx, r.Environment)
	if err != nil {
		return nil, err
	}
	back := Record{
		ID: identify(r.Environment, pushed.Commit, nil), Kind: RolledBack, Environment: r.Environment, Actor: "slipway", Of: r.ID, Reason: reason, Config: state.Commit, Audit: r.Audit,
	}
	data := file.Data
	if bytes.Equal(data, pushed.Draft.Files[file.Path]) {
		data = pushed.Old
		for _, im := range r.Images {
			back.Images = append(back.Images, ImageChange{im.Name, im.Previous, im.Digest})
		}
	} else {
		for _, im := range r.Images {
			if file.Environment.Images[im.Name].Digest != im.Digest || im.Previous == "" {
				continue
			}
			if data, err = setDigest(file.Path, data, im.Name, im.Previous.String()); err != nil {
				return nil, err
			}
			back.Images = append(back.Images, ImageChange{im.Name, im.Previous, im.Digest})
		}
	}
	if len(back.Images) == 0 {
		return nil, nil //nolint:nilnil // nothing to take back
	}
	after, err := parseFile(file.Path, data)
	if err != nil {
		return nil, err
	}
	files, err := p.filesFor(ctx, state, after, runs(file), back.ID)
	if err != nil {
		return nil, err
	}
	draft := git.Draft{Base: state.Commit, Files: files, Author: p.Sign, When: p.Now().UTC().Truncate(time.Second), Message: back.message()}
	proposal, err := p.Environments.Repository.Propose(draft)
	if err != nil || proposal == nil {
		return nil, err
	}
	return &line{Step: stepUndo, At: p.Now(), Record: &back, Draft: &draft, Commit: proposal.ID, Reason: reason}, nil
}

// landUndo puts the commit that takes back on the branch, on top of whatever others have added.
func (p *Promoter) landUndo(ctx context.Context, j *journal, l line) error {
	l.At = p.Now() // however long ago the crash was: this one must land
	on, err := p.land(ctx, l)
	if err != nil {
		return err
	}
	if on {
		return j.add(line{Step: stepUndone, At: p.Now(), Record: l.Record, Commit: l.Commit, Reason: l.Reason})
	}
	again, err := p.undo(ctx, *j.lines[0].Record, mustFind(j, stepPush), l.Reason)
	if err != nil {
		return err
	}
	if again == nil {
		return &keptError{l.Reason + "; others have changed the environment since then, and nothing was taken back"}
	}
	return j.add(*again)
}

// restored delivers what ran before.
func (p *Promoter) restored(ctx context.Context, j *journal, out Outcome, l line) (Outcome, error) {
	out.State, out.Reason, out.Commit = Back, l.Reason, l.Commit
	state, file, err := p.now(ctx, out.Environment)
	if err != nil {
		return out, err
	}
	d, err := p.deliverer(file)
	if err != nil {
		return out, err
	}
	before := runs(file)
	for _, im := range l.Record.Images {
		before[im.Name] = im.Previous
	}
	if err := d.Deliver(ctx, delivery(file, before, l.Record.ID, state), p.out()); err != nil {
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		out.State, out.Reason = Broken, fmt.Sprintf("%s; its file is back as it was, and delivering that failed: %v", l.Reason, err)
	}
	return out, p.finish(j, out, *j.lines[0].Record)
}
