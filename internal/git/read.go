package git

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Person wrote or made a commit.
type Person struct {
	Name  string
	Email string
}

func (p Person) String() string {
	if p.Email == "" {
		return p.Name
	}
	return p.Name + " <" + p.Email + ">"
}

// Commit is what a commit says about itself.
type Commit struct {
	ID        string
	Parents   []string
	Author    Person
	Committer Person
	When      time.Time // of the committer; whole seconds
	Message   string
}

// maxFile bounds what is read of one file: environment files and pipelines are
// far smaller.
const maxFile = 16 << 20

// Commit reads a commit that a Head has made readable. The error is an
// fs.ErrNotExist where it is not there.
func (r *Repository) Commit(id string) (Commit, error) {
	c, err := r.commit(id)
	if err != nil {
		return Commit{}, err
	}
	return describe(c), nil
}

func describe(c *object.Commit) Commit {
	out := Commit{
		ID: c.Hash.String(), Message: c.Message, When: c.Committer.When,
		Author:    Person{c.Author.Name, c.Author.Email},
		Committer: Person{c.Committer.Name, c.Committer.Email},
	}
	for _, p := range c.ParentHashes {
		out.Parents = append(out.Parents, p.String())
	}
	return out
}

func (r *Repository) commit(id string) (*object.Commit, error) {
	if r.objects == nil || !plumbing.IsHash(id) {
		return nil, fmt.Errorf("%s has no commit %q: %w", r, id, fs.ErrNotExist)
	}
	c, err := object.GetCommit(r.objects, plumbing.NewHash(id))
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return nil, fmt.Errorf("%s has no commit %s: %w", r, id, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("read commit %s of %s: %w", id, r, err)
	}
	return c, nil
}

// File reads a file as a commit has it. The error is an fs.ErrNotExist where
// there is none; a symbolic link is not followed.
func (r *Repository) File(commit, name string) ([]byte, error) {
	entry, err := r.entry(commit, name)
	if err != nil {
		return nil, err
	}
	if entry.Mode != filemode.Regular && entry.Mode != filemode.Executable && entry.Mode != filemode.Deprecated {
		return nil, fmt.Errorf("%s in %.12s of %s is not a file", name, commit, r)
	}
	blob, err := object.GetBlob(r.objects, entry.Hash)
	if err != nil {
		return nil, fmt.Errorf("read %s in %.12s of %s: %w", name, commit, r, err)
	}
	if blob.Size > maxFile {
		return nil, fmt.Errorf("%s in %.12s of %s has %d bytes; at most %d are read", name, commit, r, blob.Size, maxFile)
	}
	in, err := blob.Reader()
	if err != nil {
		return nil, fmt.Errorf("read %s in %.12s of %s: %w", name, commit, r, err)
	}
	data, err := io.ReadAll(in)
	return data, errors.Join(err, in.Close())
}

// List names the files directly in a directory, sorted; none where it is not there.
func (r *Repository) List(commit, dir string) ([]string, error) {
	c, err := r.commit(commit)
	if err != nil {
		return nil, err
	}
	tree, err := c.Tree()
	if err == nil && path.Clean(dir) != "." {
		tree, err = tree.Tree(path.Clean(dir))
	}
	if errors.Is(err, object.ErrDirectoryNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s in %.12s of %s: %w", dir, commit, r, err)
	}
	var names []string
	for _, e := range tree.Entries {
		if e.Mode.IsFile() {
			names = append(names, e.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (r *Repository) entry(commit, name string) (*object.TreeEntry, error) {
	c, err := r.commit(commit)
	if err != nil {
		return nil, err
	}
	tree, err := c.Tree()
	if err != nil {
		return nil, fmt.Errorf("read the tree of %.12s of %s: %w", commit, r, err)
	}
	entry, err := tree.FindEntry(path.Clean(name))
	if errors.Is(err, object.ErrEntryNotFound) || errors.Is(err, object.ErrDirectoryNotFound) {
		return nil, fmt.Errorf("no %s in %.12s of %s: %w", name, commit, r, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("look for %s in %.12s of %s: %w", name, commit, r, err)
	}
	return entry, nil
}

// Contains says whether commit is head or one of its ancestors.
func (r *Repository) Contains(head, commit string) (bool, error) {
	from, err := r.commit(head)
	if err != nil {
		return false, err
	}
	c, err := r.commit(commit)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the whole history of head is here
	}
	if err != nil {
		return false, err
	}
	found, err := c.IsAncestor(from)
	if err != nil {
		return false, fmt.Errorf("look for commit %s in the history of %s in %s: %w", commit, head, r, err)
	}
	return found, nil
}

// Walk calls visit for the commits that changed a file, the newest first, along
// the first parents of head: what the branch itself went through. visit gets the
// file as the commit left it, nil where it removed it, and ends the walk with false.
func (r *Repository) Walk(head, name string, visit func(c Commit, data []byte) (bool, error)) error {
	c, err := r.commit(head)
	if err != nil {
		return err
	}
	at, err := r.blobOf(c, name)
	for err == nil {
		var parent *object.Commit
		before := plumbing.ZeroHash
		if c.NumParents() > 0 {
			if parent, err = c.Parent(0); err != nil {
				break
			}
			if before, err = r.blobOf(parent, name); err != nil {
				break
			}
		}
		if before != at {
			if more, err := r.visit(c, name, visit); err != nil || !more {
				return err
			}
		}
		if parent == nil {
			return nil
		}
		c, at = parent, before
	}
	return fmt.Errorf("read the history of %s in %s: %w", name, r, err)
}

func (r *Repository) visit(c *object.Commit, name string, visit func(Commit, []byte) (bool, error)) (bool, error) {
	data, err := r.File(c.Hash.String(), name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return visit(describe(c), data)
}

// blobOf is the object of a file in a commit; zero where it has none.
func (r *Repository) blobOf(c *object.Commit, name string) (plumbing.Hash, error) {
	entry, err := r.entry(c.Hash.String(), name)
	if errors.Is(err, fs.ErrNotExist) {
		return plumbing.ZeroHash, nil
	}
	if err != nil {
		return plumbing.ZeroHash, err
	}
	return entry.Hash, nil
}

// Trailer is one line at the end of a commit's message (git-interpret-trailers(1)).
type Trailer struct{ Key, Value string }

// Trailers reads the lines KEY: VALUE of a message's last paragraph.
func Trailers(message string) []Trailer {
	paragraphs := strings.Split(strings.TrimRight(strings.ReplaceAll(message, "\r\n", "\n"), "\n"), "\n\n")
	if len(paragraphs) < 2 {
		return nil
	}
	var list []Trailer
	for line := range strings.Lines(paragraphs[len(paragraphs)-1]) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok || key == "" || strings.ContainsAny(key, " \t") {
			return nil
		}
		list = append(list, Trailer{key, value})
	}
	return list
}
