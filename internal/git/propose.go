package git

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/memory"
)

// Draft says what a commit is to be made of. The same draft always makes the
// same commit, with the same id: it can be made again after a crash.
type Draft struct {
	Base    string            `json:"base"`  // the commit it follows; empty: it is the first of its branch
	Files   map[string][]byte `json:"files"` // what it changes or adds, by slash-separated path
	Author  Person            `json:"author"`
	When    time.Time         `json:"when"` // whole seconds
	Message string            `json:"message"`
}

// Proposal is a commit that is not in any repository yet.
type Proposal struct {
	ID      string // hex object id
	base    plumbing.Hash
	objects *memory.Storage // the new ones alone
}

// committer is who makes the commits, whoever asked for them.
var committer = Person{"slipway", "slipway@localhost"}

// Propose makes the commit. Where the files are already so, it gives nil.
func (r *Repository) Propose(d Draft) (*Proposal, error) {
	p := &Proposal{objects: memory.NewStorage()}
	root := &object.Tree{}
	var before plumbing.Hash
	if d.Base != "" {
		c, err := r.commit(d.Base)
		if err != nil {
			return nil, err
		}
		if root, err = c.Tree(); err != nil {
			return nil, fmt.Errorf("read the tree of %s of %s: %w", d.Base, r, err)
		}
		p.base, before = c.Hash, c.TreeHash
	}
	tree, err := r.edit(p, root, split(d.Files))
	if err != nil {
		return nil, fmt.Errorf("make a commit for %s: %w", r, err)
	}
	if tree == before {
		return nil, nil //nolint:nilnil // nothing to do is no error, and no commit
	}
	by := func(who Person) object.Signature {
		return object.Signature{Name: clean(who.Name), Email: clean(who.Email), When: d.When.UTC().Truncate(time.Second)}
	}
	c := object.Commit{Author: by(d.Author), Committer: by(committer), Message: d.Message, TreeHash: tree}
	if d.Base != "" {
		c.ParentHashes = []plumbing.Hash{p.base}
	}
	id, err := p.add(c.Encode)
	if err != nil {
		return nil, fmt.Errorf("make a commit for %s: %w", r, err)
	}
	p.ID = id.String()
	return p, nil
}

// clean takes out what cannot stand in the head of a commit.
func clean(s string) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < ' ' || c == '<' || c == '>' {
			return -1
		}
		return c
	}, s))
}

// dir is what changes in a directory.
type dir struct {
	files map[string][]byte
	dirs  map[string]*dir
}

func split(files map[string][]byte) *dir {
	top := &dir{map[string][]byte{}, map[string]*dir{}}
	for name, data := range files {
		at := top
		parts := strings.Split(path.Clean(name), "/")
		for _, part := range parts[:len(parts)-1] {
			if at.dirs[part] == nil {
				at.dirs[part] = &dir{map[string][]byte{}, map[string]*dir{}}
			}
			at = at.dirs[part]
		}
		at.files[parts[len(parts)-1]] = data
	}
	return top
}

// edit makes the tree that t becomes. Modes of what is there are kept.
func (r *Repository) edit(p *Proposal, t *object.Tree, d *dir) (plumbing.Hash, error) {
	entries := slices.Clone(t.Entries)
	set := func(name string, mode filemode.FileMode, id plumbing.Hash) error {
		i := slices.IndexFunc(entries, func(e object.TreeEntry) bool { return e.Name == name })
		if i < 0 {
			entries = append(entries, object.TreeEntry{Name: name, Mode: mode, Hash: id})
			return nil
		}
		if e := entries[i]; e.Mode.IsFile() != mode.IsFile() || e.Mode == filemode.Symlink {
			return fmt.Errorf("%s is there as something else (mode %s)", name, e.Mode)
		}
		entries[i].Hash = id
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		id, err := p.blob(d.files[name])
		if err = errors.Join(err, validName(name)); err == nil {
			err = set(name, filemode.Regular, id)
		}
		if err != nil {
			return plumbing.ZeroHash, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.dirs)) {
		sub := &object.Tree{}
		if i := slices.IndexFunc(entries, func(e object.TreeEntry) bool { return e.Name == name && e.Mode == filemode.Dir }); i >= 0 {
			var err error
			if sub, err = object.GetTree(r.objects, entries[i].Hash); err != nil {
				return plumbing.ZeroHash, err
			}
		}
		id, err := r.edit(p, sub, d.dirs[name])
		if err = errors.Join(err, validName(name)); err == nil {
			err = set(name, filemode.Dir, id)
		}
		if err != nil {
			return plumbing.ZeroHash, err
		}
	}
	sort.Sort(object.TreeEntrySorter(entries))
	tree := object.Tree{Entries: entries}
	return p.add(tree.Encode)
}

func validName(name string) error {
	if name == "" || name == "." || name == ".." || strings.EqualFold(name, ".git") || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%q cannot stand in a git tree", name)
	}
	return nil
}

func (p *Proposal) blob(data []byte) (plumbing.Hash, error) {
	o := &plumbing.MemoryObject{}
	o.SetType(plumbing.BlobObject)
	if _, err := o.Write(data); err != nil {
		return plumbing.ZeroHash, err
	}
	return p.objects.SetEncodedObject(o)
}

func (p *Proposal) add(encode func(plumbing.EncodedObject) error) (plumbing.Hash, error) {
	o := &plumbing.MemoryObject{}
	if err := encode(o); err != nil {
		return plumbing.ZeroHash, err
	}
	return p.objects.SetEncodedObject(o)
}

// pack is the proposal's objects as they travel.
func (p *Proposal) pack() (*bytes.Buffer, error) {
	var ids []plumbing.Hash
	for id := range p.objects.Objects {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b plumbing.Hash) int { return bytes.Compare(a[:], b[:]) })
	var out bytes.Buffer
	_, err := packfile.NewEncoder(&out, p.objects, false).Encode(ids, 0)
	return &out, err
}
