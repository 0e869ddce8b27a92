package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"slipway/pipeline"
)

// State of a run.
type State string

// The states of a run. Those after Running are its ends.
const (
	Held     State = "held" // a fork's, until a person allows its commit
	Queued   State = "queued"
	Running  State = "running"
	Passed   State = State(pipeline.Passed)
	Failed   State = State(pipeline.Failed)
	Skipped  State = State(pipeline.Skipped)
	Canceled State = State(pipeline.Canceled)
	Broken   State = State(pipeline.Error) // slipway's own failure
)

// Over says whether a run has ended.
func (s State) Over() bool { return s != Held && s != Queued && s != Running }

// Run is what came of an event.
type Run struct {
	Seq      int64              `json:"-"` // grows in the order of acceptance
	ID       string             `json:"id"`
	Repo     string             `json:"-"` // ID
	Name     string             `json:"repo"`
	Kind     pipeline.EventKind `json:"event"`
	Ref      string             `json:"ref"`
	Base     string             `json:"base,omitempty"`   // target branch of a pull request, or name of a schedule
	Before   string             `json:"before,omitempty"` // where the ref was; of a schedule, the time it was due
	Commit   string             `json:"commit"`
	Source   string             `json:"source,omitempty"` // clone URL of a fork
	Trusted  bool               `json:"trusted"`
	Title    string             `json:"title,omitempty"`
	Author   string             `json:"author,omitempty"`
	Delivery string             `json:"delivery,omitempty"`
	State    State              `json:"state"`
	Reason   string             `json:"reason,omitempty"`
	Cancel   string             `json:"cancel,omitempty"`  // why it is to end, while it runs
	Allowed  string             `json:"allowed,omitempty"` // who let a fork's commit run
	Attempts int                `json:"attempts"`
	Record   string             `json:"record,omitempty"` // ID of the newest attempt's record and logs
	Plan     string             `json:"plan,omitempty"`
	Result   json.RawMessage    `json:"result,omitempty"` // the record itself, once it has ended
	Asked    Asked              `json:"asked,omitzero"`
	Created  time.Time          `json:"created"`
	Started  *time.Time         `json:"started,omitempty"`
	Ended    *time.Time         `json:"ended,omitempty"`

	Promotion *Promotion `json:"promotion,omitempty"` // of Ledger.Run alone
}

const (
	runColumns = `r.seq, r.id, r.repo, p.name, r.kind, r.ref, r.base, r.old, r.sha, r.source, r.trusted, r.title, r.author, r.delivery,
	r.state, r.reason, r.cancel, r.allowed, r.attempts, r.record, r.plan, r.result, r.asked, r.created, r.started, r.ended`
	runsOf = `SELECT ` + runColumns + ` FROM runs r JOIN repos p ON p.id = r.repo `
)

func scanRun(r row) (out Run, err error) {
	var trusted int
	var result, asked string
	var created, started, ended int64
	err = r.Scan(&out.Seq, &out.ID, &out.Repo, &out.Name, &out.Kind, &out.Ref, &out.Base, &out.Before, &out.Commit, &out.Source, &trusted, &out.Title, &out.Author, &out.Delivery,
		&out.State, &out.Reason, &out.Cancel, &out.Allowed, &out.Attempts, &out.Record, &out.Plan, &result, &asked, &created, &started, &ended)
	out.Trusted, out.Created, out.Started, out.Ended = trusted != 0, at(created), maybe(started), maybe(ended)
	if result != "" {
		out.Result = json.RawMessage(result)
	}
	if err == nil && asked != "" {
		err = json.Unmarshal([]byte(asked), &out.Asked)
	}
	return out, err
}

func maybe(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := at(ms)
	return &t
}

// Run finds a run by its ID, or an end of it that only one has; the error is an
// ErrNone where there is none.
func (l *Ledger) Run(ctx context.Context, id string) (Run, error) {
	if id == "" {
		return Run{}, ErrNone
	}
	found, err := rows(ctx, l.read, scanRun, runsOf+`WHERE r.id = $1 OR substr(r.id, length(r.id) - $2 + 1) = $3 ORDER BY r.seq DESC LIMIT 2`, id, len(id), id)
	switch {
	case err != nil:
		return Run{}, err
	case len(found) == 0:
		return Run{}, ErrNone
	case len(found) == 2 && found[0].ID != id && found[1].ID != id:
		return Run{}, fmt.Errorf("%q names more than one run; give more of the ID", id)
	}
	r := found[0]
	if len(found) == 2 && found[1].ID == id {
		r = found[1]
	}
	p, err := l.promotion(ctx, r.ID)
	if err == nil {
		r.Promotion = &p
	} else if err != ErrNone { //nolint:errorlint // one gives it bare
		return r, err
	}
	return r, nil
}

// Filter chooses runs; the zero value takes all.
type Filter struct {
	Repo  string // name or ID
	State State
	Ref   string
	Older int64 // only those with a smaller Seq
	Limit int   // 0: 50
}

// Runs lists runs, the newest first, without their results.
func (l *Ledger) Runs(ctx context.Context, f Filter) ([]Run, error) {
	if f.Limit <= 0 {
		f.Limit = 50
	}
	all, err := rows(ctx, l.read, scanRun, runsOf+`WHERE ($1 = '' OR p.name = $2 OR p.id = $3) AND ($4 = '' OR r.state = $5) AND ($6 = '' OR r.ref = $7) AND ($8 = 0 OR r.seq < $9)
		ORDER BY r.seq DESC LIMIT $10`, f.Repo, f.Repo, f.Repo, string(f.State), string(f.State), f.Ref, f.Ref, f.Older, f.Older, f.Limit)
	for i := range all {
		all[i].Result = nil
	}
	return all, err
}

// Attempt is one try at a run.
type Attempt struct {
	Run     string     `json:"run"`
	N       int        `json:"n"`      // from 1
	Record  string     `json:"record"` // ID of its record and logs
	Owner   string     `json:"-"`
	Here    bool       `json:"-"` // it is this ledger's owner's
	Started time.Time  `json:"started"`
	Ended   *time.Time `json:"ended,omitempty"`
	State   State      `json:"state"`
	Reason  string     `json:"reason,omitempty"`
	Removed *time.Time `json:"removed,omitempty"` // when its log and artifacts went, to make room
}

// Attempts lists the attempts at a run, the first first.
func (l *Ledger) Attempts(ctx context.Context, run string) ([]Attempt, error) {
	return rows(ctx, l.read, func(r row) (a Attempt, err error) {
		var started, ended, removed int64
		err = r.Scan(&a.Run, &a.N, &a.Record, &a.Owner, &started, &ended, &a.State, &a.Reason, &removed)
		a.Started, a.Ended, a.Removed, a.Here = at(started), maybe(ended), maybe(removed), a.Owner == l.owner
		return a, err
	}, `SELECT run, n, record, owner, started, ended, state, reason, removed FROM attempts WHERE run = $1 ORDER BY n`, run)
}

// Removed notes that the logs and artifacts of attempts are going, by their records.
func (l *Ledger) Removed(ctx context.Context, records []string, now time.Time) error {
	return l.change(ctx, "note what is removed", func(tx *sql.Tx) error {
		for _, r := range records {
			if _, err := tx.ExecContext(ctx, `UPDATE attempts SET removed = $1 WHERE record = $2 AND removed = 0`, ms(now), r); err != nil {
				return err
			}
		}
		return nil
	})
}

// RunOf finds the run of an attempt's record.
func (l *Ledger) RunOf(ctx context.Context, record string) (string, error) {
	return one(ctx, l.read, scanOne[string], `SELECT run FROM attempts WHERE record = $1`, record)
}

// Newer says whether a later run of the same ref has passed: then what this one
// built must not take its place.
func (l *Ledger) Newer(ctx context.Context, r Run) (bool, error) {
	n, err := one(ctx, l.read, scanOne[int],
		`SELECT count(*) FROM runs WHERE repo = $1 AND kind = $2 AND ref = $3 AND seq > $4 AND state = 'passed'`, r.Repo, string(r.Kind), r.Ref, r.Seq)
	return n > 0, err
}

// Counts says how many runs there are in each state.
func (l *Ledger) Counts(ctx context.Context) (map[State]int, error) {
	type count struct {
		state State
		n     int
	}
	all, err := rows(ctx, l.read, func(r row) (c count, err error) {
		err = r.Scan(&c.state, &c.n)
		return c, err
	}, `SELECT state, count(*) FROM runs GROUP BY state`)
	counts := map[State]int{}
	for _, c := range all {
		counts[c.state] = c.n
	}
	return counts, err
}
