package promote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

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

// drift says where what runs is not what a file says; empty where it is, or nobody knows.
func (s Status) drift(f File) string {
	if !s.Known {
		return ""
	}
	running := map[string]ImageStatus{}
	for _, im := range s.Images {
		running[im.Name] = im
	}
	for _, name := range slices.Sorted(maps.Keys(f.Environment.Images)) {
		want := f.Environment.Images[name].Digest
		if got := running[name].Digest; got != want {
			return fmt.Sprintf("%s runs %s, not %s", name, orNothing(got), orNothing(want))
		}
	}
	return ""
}
