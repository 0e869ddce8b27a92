package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// depths is how much history is asked for, in commits, until what is looked for
// is there. The last one is git's word for all of it.
var depths = [...]int{1, 64, 1024, everything}

const everything = 0x7fffffff

// Fetch makes a commit of a remote readable, with its files. commit is its whole
// id; empty: what the ref is at now. The ref must be at it or have it in its
// history: the error is a *NotThere where it has not, as after a forced push, and
// where there is no such ref. No more history is fetched than that takes.
func (m *Mirror) Fetch(ctx context.Context, r Remote, ref, commit string) (Commit, error) {
	if err := CheckRef(ref); err != nil {
		return Commit{}, err
	}
	if commit != "" && !plumbing.IsHash(commit) {
		return Commit{}, fmt.Errorf("fetch %q: that is no commit; give all 40 digits of its id", commit)
	}
	var got Commit
	err := m.with(ctx, r, func(ctx context.Context, c *conversation) (err error) {
		if commit, err = c.hold(ctx, ref, commit); err == nil {
			got, err = m.Commit(commit)
		}
		return err
	})
	return got, err
}

// Refs is where a remote's refs are now.
type Refs struct {
	Default string            // the ref that HEAD stands for; empty where the remote does not say
	At      map[string]string // commits by the whole names of refs
}

// List asks a remote for its refs: those whose names begin with one of the prefixes.
func (r Remote) List(ctx context.Context, limits Limits, prefixes ...string) (Refs, error) {
	limits = NewMirror("", limits).limits
	ctx, cancel := context.WithTimeoutCause(ctx, limits.Time, errSlow)
	defer cancel()
	s, err := r.dial(ctx, limits.Pack)
	if err != nil {
		return Refs{}, err
	}
	out := Refs{At: map[string]string{}}
	for name := range s.refs.References {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			_, commit := s.at(name)
			out.At[name] = commit.String()
		}
	}
	for _, v := range s.refs.Capabilities.Get(capability.SymRef) {
		if to, ok := strings.CutPrefix(v, "HEAD:"); ok {
			out.Default = to
		}
	}
	return out, s.close()
}

var errSlow = errors.New("it took longer than allowed; raise the server's limit for this repository, or see why its host is slow")

// conversation is one fetch: the lock is held, and the remote has said what it has.
type conversation struct {
	*Mirror
	remote Remote
	refs   *session
	used   bool // the session has given its one pack
}

// with runs what a fetch does. A branch that moves in the middle of it makes the
// other side refuse a commit it has just offered; then all is asked again.
func (m *Mirror) with(ctx context.Context, r Remote, do func(context.Context, *conversation) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.limits.Time, errSlow)
	defer cancel()
	unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for try := 1; ; try++ {
		c := &conversation{Mirror: m, remote: r}
		if err := c.redial(ctx); err != nil {
			return err
		}
		err := do(ctx, c)
		_ = c.refs.close() // what counts has been received, or err says why not
		if err == nil || try == 3 || !strings.Contains(err.Error(), "not our ref") {
			return err
		}
	}
}

func (c *conversation) redial(ctx context.Context) error {
	if c.refs != nil {
		_ = c.refs.close()
	}
	s, err := c.remote.dial(ctx, c.limits.Pack)
	if err == nil {
		c.refs, c.used = s, false
	}
	return err
}

// hold makes a commit of a ref readable and gives its id.
func (c *conversation) hold(ctx context.Context, ref, commit string) (string, error) {
	object, at := c.refs.at(ref)
	if object.IsZero() {
		return "", &NotThere{Ref: ref, reason: fmt.Sprintf("%s has no %s (any more); push it again, or run another ref", withoutCredentials(c.remote.URL), ref)}
	}
	if commit == "" {
		commit = at.String()
	}
	for _, depth := range depths {
		switch found, err := c.descends(at.String(), commit); {
		case err != nil:
			return "", err
		case found == yes:
			return commit, nil
		case found == no:
			return "", &NotThere{Ref: ref, Commit: commit, reason: fmt.Sprintf(
				"commit %.12s is not in the history of %s of %s, which is at %.12s: a forced push has removed it, or it was never there; run the commit that the ref is at",
				commit, ref, withoutCredentials(c.remote.URL), at)}
		}
		if err := c.get(ctx, depth, object); err != nil {
			return "", err
		}
	}
	found, err := c.descends(at.String(), commit)
	if err == nil && found != yes {
		err = fmt.Errorf("fetch %s of %s: the remote says it sent all of its history, and did not; try again", ref, withoutCredentials(c.remote.URL))
	}
	return commit, err
}

// get fetches objects with depth commits of history.
func (c *conversation) get(ctx context.Context, depth int, wants ...plumbing.Hash) error {
	if c.used {
		if err := c.redial(ctx); err != nil {
			return err
		}
	}
	c.used = true
	req, err := c.request(depth, wants)
	if err != nil {
		return err
	}
	res, err := c.refs.fetch(ctx, req)
	if errors.Is(err, transport.ErrEmptyUploadPackRequest) {
		return nil // all of it is here
	}
	if err != nil {
		return c.remote.explain(ctx, err)
	}
	err = c.receive(ctx, req.Capabilities, res)
	if err = errors.Join(err, res.Close()); err != nil {
		return c.remote.explain(ctx, err)
	}
	return c.remember(wants)
}

func (c *conversation) request(depth int, wants []plumbing.Hash) (*packp.UploadPackRequest, error) {
	known, err := c.tips()
	if err != nil {
		return nil, err
	}
	has := c.refs.refs.Capabilities
	req := packp.NewUploadPackRequest()
	req.Wants = wants
	for _, want := range []capability.Capability{capability.Sideband64k, capability.OFSDelta, capability.NoProgress} {
		if has.Supports(want) {
			if err := req.Capabilities.Set(want); err != nil {
				return nil, err
			}
		}
	}
	if has.Supports(capability.Shallow) { // without it, git sends all there is
		if err := req.Capabilities.Set(capability.Shallow); err != nil {
			return nil, err
		}
		req.Depth = packp.DepthCommits(depth)
	}
	for _, t := range known[:min(len(known), maxHaves)] {
		if len(t.cut) > 0 && !has.Supports(capability.Shallow) {
			continue // this side could not say that it has only a part
		}
		req.Haves = append(req.Haves, plumbing.NewHash(t.commit))
		for _, h := range t.cut {
			if !slices.Contains(req.Shallows, h) {
				req.Shallows = append(req.Shallows, h)
			}
		}
	}
	return req, nil
}

// remember writes down the commits that were asked for, and where their history ends here.
func (c *conversation) remember(wants []plumbing.Hash) error {
	store := c.open()
	defer func() { _ = store.Close() }() // only read from
	known, err := c.tips()
	if err != nil {
		return err
	}
	for _, w := range wants {
		commit, err := peel(store, w)
		if err != nil {
			return err
		}
		cut, err := edge(store, commit, known)
		if err == nil {
			err = c.record(tip{commit: commit.String(), cut: cut})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Base makes the histories of two commits readable as far back as where they
// part, and gives the commit there: a pull request is what its head changed since
// then. The points are fetched as Fetch does. The error is an fs.ErrNotExist
// where the two have no commit in common.
//
// Where a history has several such commits (git-merge-base(1)), or its clocks go
// backwards, it gives one of them, not always the best: then more counts as changed.
func (m *Mirror) Base(ctx context.Context, r Remote, base, head Point) (string, error) {
	var found string
	err := m.with(ctx, r, func(ctx context.Context, c *conversation) (err error) {
		if base.Commit, err = c.hold(ctx, base.Ref, base.Commit); err != nil {
			return err
		}
		if head.Commit, err = c.hold(ctx, head.Ref, head.Commit); err != nil {
			return err
		}
		_, from := c.refs.at(base.Ref)
		_, to := c.refs.at(head.Ref)
		for _, depth := range depths {
			found, err = c.common(base.Commit, head.Commit)
			if err != nil || found != "" {
				return err
			}
			if depth == 1 {
				continue // that much is here
			}
			if err := c.get(ctx, depth, from, to); err != nil {
				return err
			}
		}
		if found, err = c.common(base.Commit, head.Commit); err == nil && found == "" {
			err = fmt.Errorf("%s and %s of %s have no history in common: %w", base.Ref, head.Ref, withoutCredentials(r.URL), fs.ErrNotExist)
		}
		return err
	})
	return found, err
}

// Point is a commit of a ref; without a commit, the one the ref is at now.
type Point struct{ Ref, Commit string }

// FetchAny makes a commit readable that need not be in the history of any ref,
// such as the one a branch was at before a forced push. Many forges give them out
// for a while. The error is a *NotThere where this one does not.
func (m *Mirror) FetchAny(ctx context.Context, r Remote, commit string) error {
	if !plumbing.IsHash(commit) {
		return fmt.Errorf("fetch %q: that is no commit; give all 40 digits of its id", commit)
	}
	if has, err := m.Has(commit); has || err != nil {
		return err
	}
	return m.with(ctx, r, func(ctx context.Context, c *conversation) error {
		gone := &NotThere{Commit: commit, reason: fmt.Sprintf("%s does not give out commit %.12s, which no ref leads to; take all of the files as changed", withoutCredentials(r.URL), commit)}
		if !c.refs.any() {
			return gone
		}
		err := c.get(ctx, 1, plumbing.NewHash(commit))
		if err != nil && strings.Contains(err.Error(), "not our ref") {
			return gone
		}
		return err
	})
}
