package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/pipeline"
)

// noCommit is what a ref that is new was at before, as forges write it.
const noCommit = "0000000000000000000000000000000000000000"

// reconciler finds pushes whose webhook was lost: it looks where branches and tags
// are, and delivers what nobody told of. The run it makes has the key that the
// webhook's would have had, so that one which comes after all makes no second run.
type reconciler struct {
	*Server
	waiting map[string]string // commits by repository and ref that the look before found untold
}

// reconcile looks at every repository. One that cannot be reached holds up no other.
func (r *reconciler) reconcile(ctx context.Context) error {
	repos, err := r.Ledger.Repos(ctx)
	if err != nil {
		return err
	}
	found := map[string]string{}
	for _, repo := range repos {
		if err := r.look(ctx, repo, found); err != nil && ctx.Err() == nil {
			r.Log.Warn().Err(err).Str("repo", repo.Name).Msg("pushes without a webhook cannot be looked for; slipway tries again")
		}
	}
	r.waiting = found
	return nil
}

// look compares where the refs of a repository are with where they were and with
// the runs. What differs may have its webhook under way: it goes into found, and is
// delivered by the look after that.
func (r *reconciler) look(ctx context.Context, repo ledger.Repo, found map[string]string) error {
	now, err := r.Look(ctx, repo)
	if err != nil {
		return err
	}
	seen, first, err := readSeen(r.SeenFile(repo))
	if err != nil {
		return err
	}
	next := maps.Clone(now)
	d := forge.Delivery{Event: "look"}
	for _, ref := range slices.Sorted(maps.Keys(now)) {
		before, untold, err := r.untold(ctx, repo, ref, now[ref], seen, first)
		if err != nil {
			return err
		}
		if !untold {
			continue
		}
		if key := repo.ID + " " + ref; r.waiting[key] != now[ref] {
			found[key] = now[ref]
			delete(next, ref) // not seen until it is delivered
			if was, ok := seen[ref]; ok {
				next[ref] = was
			}
			continue
		}
		kind := pipeline.Push
		if strings.HasPrefix(ref, "refs/tags/") {
			kind = pipeline.Tag
		}
		d.Changes = append(d.Changes, forge.Change{Event: pipeline.Event{Kind: kind, Ref: ref, Commit: now[ref], Trusted: true}, Before: before, After: now[ref]})
	}
	if err := r.tell(ctx, repo, d); err != nil {
		return err
	}
	if maps.Equal(next, seen) {
		return nil
	}
	return writeSeen(r.SeenFile(repo), next)
}

// untold says whether no run is of where a ref is, and where it was before.
func (r *reconciler) untold(ctx context.Context, repo ledger.Repo, ref, commit string, seen map[string]string, first bool) (before string, untold bool, err error) {
	was, known := seen[ref]
	if was == commit {
		return "", false, nil
	}
	runs, err := r.Ledger.Runs(ctx, ledger.Filter{Repo: repo.ID, Ref: ref})
	if err != nil {
		return "", false, err
	}
	runs = slices.DeleteFunc(runs, func(run ledger.Run) bool {
		return run.Kind == pipeline.PullRequest || run.Kind == pipeline.Schedule // pull requests have branches' names on Bitbucket
	})
	switch {
	case slices.ContainsFunc(runs, func(run ledger.Run) bool { return run.Commit == commit }):
		return "", false, nil
	case len(runs) > 0:
		// A tag that had a run has it: some forges tell of the tag's own object, not of its commit.
		return runs[0].Commit, !strings.HasPrefix(ref, "refs/tags/"), nil
	case known:
		return was, true, nil
	}
	return noCommit, !first, nil // at the first look, what is there is old
}

// tell accepts what a look has found as if a webhook had told it.
func (r *reconciler) tell(ctx context.Context, repo ledger.Repo, d forge.Delivery) error {
	if len(d.Changes) == 0 {
		return nil
	}
	began := time.Now()
	accepted, err := r.Ledger.Accept(ctx, ledger.Delivery{Repo: repo.ID, ID: "look-" + r.NewID(), Event: d.Event, At: time.Now()}, r.changes(repo, d))
	if err != nil {
		return err
	}
	r.traceAccepted("look", began, repo.Name, accepted.Runs)
	r.Log.Warn().Str("repo", repo.Name).Strs("runs", accepted.Runs).Msg("pushes were found that no webhook told of; see the forge's list of deliveries")
	nudge(r.poke)
	nudge(r.sayable)
	return nil
}

// readSeen reads where refs were at the last look; first: there was none.
func readSeen(file string) (seen map[string]string, first bool, err error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	if err := json.Unmarshal(data, &seen); err != nil {
		return nil, false, fmt.Errorf("%s: %w; remove the file: what is in the repository now then counts as old", file, err)
	}
	return seen, false, nil
}

func writeSeen(file string, seen map[string]string) error {
	data, err := json.Marshal(seen)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file) // lost in a crash of the machine, it is made anew: the ledger knows the runs
}
