package promote

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/git"
	"slipway/internal/registry"
)

// Promoter carries promotions out. Its fields are set once.
type Promoter struct {
	Dir          string // of this root's journals and its audit log
	Environments Environments
	Registries   *registry.Registries
	Git          func(address string) (*git.Repository, error) // other repositories: of sources, of delivery
	Deliverers   map[string]Deliverer                          // by kind
	Now          func() time.Time
	Sign         git.Person // who asks, as the commits say it
	Out          io.Writer  // what deliveries and checks say
}

// Audit is this root's log.
func (p *Promoter) Audit() Audit { return Audit{filepath.Join(p.Dir, "audit.jsonl")} }

// deliverer is the kind that an environment names.
func (p *Promoter) deliverer(f File) (Deliverer, error) {
	kind := f.Environment.Deliver.Kind
	if kind == "" {
		return written{}, nil
	}
	d, ok := p.Deliverers[kind]
	if !ok {
		return nil, fmt.Errorf("%s: deliver: this slipway does not deliver by %s yet; leave deliver out, or write git", f.Path, kind)
	}
	return d, nil
}

// Ends of a promotion.
const (
	Done      = "done"        // the environment runs it
	Unchanged = "unchanged"   // it did so before
	Refused   = "refused"     // a gate is shut; nothing was changed
	Undone    = "undone"      // it was cut off before anything changed
	Back      = "rolled back" // it failed there, and what ran before runs again
	Broken    = "failed"      // it failed there, and was left so, or could not be taken back
)

// Outcome is how a promotion ended.
type Outcome struct {
	State       string        `json:"state"`
	Promotion   string        `json:"promotion"`
	Kind        Kind          `json:"kind"`
	Environment string        `json:"environment"`
	Images      []ImageChange `json:"images"`
	Commit      string        `json:"commit,omitempty"` // that the environment is at because of it
	Reason      string        `json:"reason,omitempty"`
	Sent        int64         `json:"sent_bytes"` // to the environment's registry
	Resumed     bool          `json:"resumed,omitempty"`
}

// Lost says that somebody else changed the environment first.
type Lost struct {
	Environment string
	By          Entry // what won
}

func (l *Lost) Error() string {
	who := fmt.Sprintf("commit %.12s by %s", l.By.Commit, l.By.Actor)
	if l.By.ID != "" {
		who = fmt.Sprintf("%s %s by %s (commit %.12s)", l.By.Kind, l.By.ID, l.By.Actor, l.By.Commit)
	}
	return fmt.Sprintf("%s was changed by somebody else meanwhile: %s; nothing of yours was changed; look at `slipway env status %s`, then promote again", l.Environment, who, l.Environment)
}

func (e Event) of(r Record) Event {
	e.Promotion, e.Kind, e.Environment, e.Images, e.Actor, e.BreakGlass = r.ID, r.Kind, r.Environment, r.Images, r.Actor, r.BreakGlass
	return e
}

// changed compares what ran with what is to run.
func changed(before map[string]digest.Digest, wanted []Wanted) []ImageChange {
	var all []ImageChange
	for _, w := range wanted {
		if before[w.Name] != w.Digest {
			all = append(all, ImageChange{w.Name, w.Digest, before[w.Name]})
		}
	}
	return all
}

// say tells the user what is under way.
func (p *Promoter) say(format string, args ...any) {
	if p.Out != nil {
		fmt.Fprintf(p.Out, format+"\n", args...)
	}
}

func (p *Promoter) out() io.Writer {
	if p.Out == nil {
		return io.Discard
	}
	return p.Out
}

// Recover finishes or undoes what was cut off on this root. What another process
// is at is left to it.
func (p *Promoter) Recover(ctx context.Context) ([]Outcome, error) {
	left, err := filepath.Glob(filepath.Join(p.Dir, "*.journal"))
	if err != nil {
		return nil, err
	}
	var all []Outcome
	for _, path := range left {
		name := filepath.Base(path[:len(path)-len(".journal")])
		out, err := p.recoverOne(ctx, name)
		if err != nil {
			return all, fmt.Errorf("finish what was cut off in %s: %w", name, err)
		}
		if out != nil {
			all = append(all, *out)
		}
	}
	return all, nil
}
