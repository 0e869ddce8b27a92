package promote

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/git"
)

// Needed gives the digests that environments run, or may be brought back to: what
// each runs now and what `slipway rollback` would bring back, however long ago
// that was; all that has run since then; and the same of what this root has promoted,
// into environments too that it cannot see now. Whoever removes images keeps these.
func (p *Promoter) Needed(ctx context.Context, since time.Time) (map[digest.Digest]bool, error) {
	all := map[digest.Digest]bool{}
	if err := p.audited(since, all); err != nil {
		return nil, err
	}
	state, err := p.Environments.Read(ctx)
	if errors.Is(err, git.ErrNoBranch) || errors.Is(err, fs.ErrNotExist) {
		return all, nil // there are no environments yet
	}
	if err != nil {
		return nil, err
	}
	for _, name := range state.Names() {
		history, err := state.History(name)
		if err != nil {
			return nil, err
		}
		for _, e := range needed(history, since) {
			for _, d := range e.Runs {
				all[d] = true
			}
		}
	}
	return all, nil
}

// needed are the entries whose images are: down to the one that was in effect at
// that time, and the one that a rollback goes to. A file that could not be read
// has no images; then what ran before it counts.
func needed(newestFirst []Entry, since time.Time) []Entry {
	var all []Entry
	for _, e := range newestFirst {
		all = append(all, e)
		if e.When.Before(since) && len(e.Runs) > 0 {
			break
		}
	}
	if back, ok := before(newestFirst); ok {
		all = append(all, back)
	}
	return all
}

// audited adds what the log tells of: the last promotion to each environment with
// what it replaced, and all since then. One that is under way stands there since
// it began.
func (p *Promoter) audited(since time.Time, into map[digest.Digest]bool) error {
	var data bytes.Buffer
	if err := p.Audit().Export(&data); err != nil {
		return err
	}
	a, err := ReadAudit(p.Audit().Path, data.Bytes())
	if err != nil {
		return err
	}
	seen := map[string]bool{} // environments
	for _, e := range slices.Backward(a.Events) {
		if e.What != "begin" || seen[e.Environment] && e.At.Before(since) {
			continue
		}
		seen[e.Environment] = true
		for _, im := range e.Images {
			into[im.Digest], into[im.Previous] = true, true
		}
	}
	delete(into, "") // nothing ran before
	return nil
}
