package git

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/utils/merkletrie"
)

// answer to a question about a history of which only a part may be here.
type answer int

const (
	unknown answer = iota
	yes
	no
)

// next is what a visitor of a history wants to see.
type next int

const (
	parents next = iota // those of this commit, in their turn
	others              // not the parents of this one
	nothing
)

// walk visits commits and their history, the newest first. It goes round what is
// not here, and says whether there was such.
func walk(store *filesystem.Storage, visit func(*object.Commit) next, from ...plumbing.Hash) (cut bool, err error) {
	seen := map[plumbing.Hash]bool{}
	var queue byDate
	for {
		for _, h := range from {
			if seen[h] {
				continue
			}
			seen[h] = true
			c, err := object.GetCommit(store, h)
			if errors.Is(err, plumbing.ErrObjectNotFound) {
				cut = true
				continue
			}
			if err != nil {
				return cut, fmt.Errorf("read commit %s: %w", h, err)
			}
			heap.Push(&queue, c)
		}
		if len(queue) == 0 {
			return cut, nil
		}
		c := heap.Pop(&queue).(*object.Commit) //nolint:forcetypeassert // there is nothing else in it
		switch visit(c) {
		case parents:
			from = c.ParentHashes
		case others:
			from = nil
		case nothing:
			return cut, nil
		}
	}
}

// byDate is a heap of commits, the newest first.
type byDate []*object.Commit

func (b byDate) Len() int           { return len(b) }
func (b byDate) Less(i, j int) bool { return when(b[i]).After(when(b[j])) }
func (b byDate) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }
func (b *byDate) Push(c any)        { *b = append(*b, c.(*object.Commit)) } //nolint:forcetypeassert // heap.Push gives what walk pushes
func (b *byDate) Pop() any {
	last := (*b)[len(*b)-1]
	*b = (*b)[:len(*b)-1]
	return last
}

func when(c *object.Commit) time.Time { return c.Committer.When }

// descends says whether commit is head or in its history.
func (m *Mirror) descends(head, commit string) (answer, error) {
	store := m.open()
	defer func() { _ = store.Close() }() // only read from
	found := no
	cut, err := walk(store, func(c *object.Commit) next {
		if c.Hash.String() == commit {
			found = yes
			return nothing
		}
		return parents
	}, plumbing.NewHash(head))
	if found != yes && cut {
		found = unknown
	}
	return found, err
}

// IsAncestor says whether commit is head or one of its ancestors, by what is
// here. known is false where too little of the history is.
func (m *Mirror) IsAncestor(commit, head string) (is, known bool, err error) {
	a, err := m.descends(head, commit)
	return a == yes, a != unknown, err
}

// common is a commit that both have in their histories, as far as they are here;
// else empty. What is marked by one and then by the other is looked at again: the
// clocks of those who commit differ.
func (m *Mirror) common(a, b string) (string, error) {
	store := m.open()
	defer func() { _ = store.Close() }() // only read from
	const ofA, ofB = 1, 2
	marks := map[plumbing.Hash]int{}
	var queue byDate
	mark := func(h plumbing.Hash, with int) error {
		if marks[h]|with == marks[h] {
			return nil
		}
		marks[h] |= with
		c, err := object.GetCommit(store, h)
		if err == nil {
			heap.Push(&queue, c)
		} else if !errors.Is(err, plumbing.ErrObjectNotFound) {
			return fmt.Errorf("read commit %s: %w", h, err)
		}
		return nil
	}
	err := errors.Join(mark(plumbing.NewHash(a), ofA), mark(plumbing.NewHash(b), ofB))
	for len(queue) > 0 && err == nil {
		c := heap.Pop(&queue).(*object.Commit) //nolint:forcetypeassert // there is nothing else in it
		if marks[c.Hash] == ofA|ofB {
			return c.Hash.String(), nil
		}
		for _, p := range c.ParentHashes {
			err = errors.Join(err, mark(p, marks[c.Hash]))
		}
	}
	return "", err
}

// edge lists the commits in the history of one whose parents are not all here. It
// looks no further than the tips whose edges are known.
func edge(store *filesystem.Storage, of plumbing.Hash, known []tip) ([]plumbing.Hash, error) {
	edges := make(map[plumbing.Hash][]plumbing.Hash, len(known))
	for _, t := range known {
		edges[plumbing.NewHash(t.commit)] = t.cut
	}
	delete(edges, of) // it may have been deepened
	found := map[plumbing.Hash]bool{}
	var broken error
	_, err := walk(store, func(c *object.Commit) next {
		if cut, ok := edges[c.Hash]; ok {
			for _, h := range cut {
				found[h] = true
			}
			return others
		}
		for _, p := range c.ParentHashes {
			switch err := store.HasEncodedObject(p); {
			case errors.Is(err, plumbing.ErrObjectNotFound):
				found[c.Hash] = true
				return others
			case err != nil:
				broken = err
				return nothing
			}
		}
		return parents
	}, of)
	return slices.Collect(maps.Keys(found)), errors.Join(err, broken)
}

// peel follows annotated tags to a commit.
func peel(store *filesystem.Storage, h plumbing.Hash) (plumbing.Hash, error) {
	for range 16 {
		tag, err := object.GetTag(store, h)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			return h, nil
		}
		if err != nil {
			return h, fmt.Errorf("read tag %s: %w", h, err)
		}
		h = tag.Target
	}
	return h, fmt.Errorf("tag %s leads to a tag, and that to another; tag the commit itself", h)
}

// Changed lists the slash-separated paths that differ between two commits that
// were fetched, sorted, both names of a rename included. An empty base means that
// there was nothing before: all paths. The error is an fs.ErrNotExist where a
// commit was not fetched.
func (m *Mirror) Changed(ctx context.Context, base, head string) ([]string, error) {
	store := m.open()
	defer func() { _ = store.Close() }() // only read from
	var trees [2]*object.Tree
	for i, id := range []string{base, head} {
		if id == "" {
			continue
		}
		c, err := commitIn(store, id)
		if err == nil {
			trees[i], err = c.Tree()
		}
		if err != nil {
			return nil, fmt.Errorf("compare %.12s with %.12s: %w", base, head, err)
		}
	}
	paths, err := changed(ctx, trees[0], trees[1])
	if err != nil {
		return nil, fmt.Errorf("compare %.12s with %.12s: %w", base, head, err)
	}
	return paths, nil
}

// changed lists the paths that differ between two trees; nil is an empty one.
func changed(ctx context.Context, from, to *object.Tree) ([]string, error) {
	changes, err := object.DiffTreeWithOptions(ctx, from, to, &object.DiffTreeOptions{})
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, c := range changes {
		action, err := c.Action()
		if err != nil {
			return nil, err
		}
		if action != merkletrie.Insert {
			seen[c.From.Name] = true
		}
		if action != merkletrie.Delete {
			seen[c.To.Name] = true
		}
	}
	paths := make([]string, 0, len(seen))
	for p := range seen {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	return paths, nil
}
