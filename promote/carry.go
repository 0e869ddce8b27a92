package promote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"slipway/internal/git"
)

// resumeWithin is how long after a crash a commit is still put on its branch.
// Later it is left: who asked for it has long looked elsewhere, and by then
// nothing that was sent can still arrive.
const resumeWithin = 10 * time.Minute

// carry goes on from the last step in the journal to the end.
func (p *Promoter) carry(ctx context.Context, j *journal, sent int64) (Outcome, error) {
	begun := j.lines[0]
	out := Outcome{Promotion: begun.Record.ID, Kind: begun.Record.Kind, Environment: begun.Record.Environment, Images: begun.Record.Images, Sent: sent}
	if ended, what := p.ended(*begun.Record); ended {
		out.State, out.Commit, out.Reason = what.What, what.Commit, what.Reason
		return out, j.end()
	}
	for {
		l := j.last()
		var err error
		switch l.Step {
		case stepBegin:
			out.State, out.Reason = Undone, "it was cut off before anything changed"
			return out, p.undone(j, *begun.Record, out.Reason)
		case stepPush:
			var landed bool
			if landed, err = p.land(ctx, l); err == nil && !landed {
				out.State, out.Reason = Undone, "it was cut off before its commit was on the branch"
				return out, p.undone(j, *begun.Record, out.Reason)
			}
			if err == nil {
				err = j.add(line{Step: stepCommitted, At: p.Now(), Commit: l.Commit})
			}
		case stepCommitted:
			err = p.deliver(ctx, j)
		case stepDelivered:
			done := false
			if done, err = p.verify(ctx, j); done {
				out.State, out.Commit = Done, mustFind(j, stepPush).Commit
				return out, p.finish(j, out, *begun.Record)
			}
		case stepUndo:
			err = p.landUndo(ctx, j, l)
		case stepUndone:
			return p.restored(ctx, j, out, l)
		}
		var kept *keptError
		if errors.As(err, &kept) {
			out.State, out.Reason, out.Commit = Broken, kept.reason, mustFind(j, stepPush).Commit
			return out, p.finish(j, out, *begun.Record)
		}
		if err != nil {
			return out, err
		}
	}
}

func mustFind(j *journal, s step) line {
	l, _ := j.find(s)
	return l
}

// keptError says that a failure is left as it is.
type keptError struct{ reason string }

func (k *keptError) Error() string { return k.reason }

// ended says whether the audit log knows already how a promotion ended: a crash
// came before its journal was removed.
func (p *Promoter) ended(r Record) (bool, Event) {
	var log string
	var n int
	if _, err := fmt.Sscanf(r.Audit, "%s %d", &log, &n); err != nil {
		return false, Event{}
	}
	var data bytes.Buffer
	if err := p.Audit().Export(&data); err != nil {
		return false, Event{}
	}
	a, err := ReadAudit("audit", data.Bytes())
	if err != nil {
		return false, Event{}
	}
	for _, e := range a.Events[min(n+1, len(a.Events)):] {
		if e.Promotion == r.ID && e.What != "begin" && slices.Contains([]string{Done, Undone, Back, Broken, "lost", Refused}, e.What) {
			return true, e
		}
	}
	return false, Event{}
}

func (p *Promoter) finish(j *journal, o Outcome, r Record) error {
	_, err := p.Audit().add(Event{At: p.Now(), What: o.State, Commit: o.Commit, Reason: o.Reason}.of(r))
	return errors.Join(err, j.end())
}

// land makes sure that the commit of a journal is on the branch, or says that it
// is not and will not be.
func (p *Promoter) land(ctx context.Context, l line) (bool, error) {
	head, err := p.Environments.Repository.Head(ctx, p.Environments.Branch)
	if err != nil {
		return false, err
	}
	on, err := p.Environments.Repository.Contains(head, l.Commit)
	if on || err != nil {
		return on, err
	}
	if head != l.Draft.Base || p.Now().Sub(l.At) > resumeWithin {
		return false, nil
	}
	proposal, err := p.Environments.Repository.Propose(*l.Draft)
	if err != nil {
		return false, err
	}
	err = p.Environments.Repository.Push(ctx, p.Environments.Branch, proposal)
	var moved *git.Moved
	var denied *git.Denied
	if errors.As(err, &moved) || errors.As(err, &denied) {
		return false, nil
	}
	return err == nil, err
}

// now reads the environment as the branch has it: what others have promoted
// since then is not delivered away.
func (p *Promoter) now(ctx context.Context, environment string) (State, File, error) {
	state, err := p.Environments.Read(ctx)
	if err != nil {
		return state, File{}, err
	}
	file, err := state.File(environment)
	return state, file, err
}

func (p *Promoter) deliver(ctx context.Context, j *journal) error {
	r := j.lines[0].Record
	state, file, err := p.now(ctx, r.Environment)
	if err != nil {
		return err
	}
	d, err := p.deliverer(file)
	if err != nil {
		return err
	}
	before := runs(file)
	for _, im := range r.Images {
		before[im.Name] = im.Previous
	}
	if err := d.Deliver(ctx, delivery(file, before, r.ID, state), p.out()); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return p.fail(ctx, j, "delivery failed: "+err.Error())
	}
	return j.add(line{Step: stepDelivered, At: p.Now()})
}

// verify checks what was delivered.
func (p *Promoter) verify(ctx context.Context, j *journal) (bool, error) {
	r := j.lines[0].Record
	state, file, err := p.now(ctx, r.Environment)
	if err != nil {
		return false, err
	}
	if v := file.Environment.Verify; v != nil {
		p.say("verifying %s", r.Environment)
		reason, err := check(ctx, *v, r.Environment, r.ID, p.out())
		if err != nil {
			return false, err
		}
		if reason != "" {
			return false, p.fail(ctx, j, reason)
		}
	}
	d, err := p.deliverer(file)
	if err != nil {
		return false, err
	}
	status, err := d.Status(ctx, delivery(file, nil, r.ID, state))
	if err != nil {
		return false, err
	}
	if drift := status.drift(file); drift != "" {
		return false, p.fail(ctx, j, "after delivery "+drift)
	}
	return true, nil
}
