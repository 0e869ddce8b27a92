// Package git reads what a run needs to know about a work tree: the commit, the
// branch, whether the tree is clean, and which paths differ from another commit.
// And it reads and writes branches of repositories elsewhere: bare ones on this
// machine, and remote ones. For a server it keeps a Mirror of each repository it
// builds: Fetch a commit, ask what Changed, and Checkout its files.
//
// It never writes to a work tree, an index or a ref. What it adds to a branch it
// makes of objects, and hands over in one push that says which commit the branch
// must still have: a compare-and-swap that the other side does. For a repository
// on this machine the other side is git's own git-receive-pack or
// git-upload-pack; no other program of git is ever run, and no filter or hook. It
// refuses to force a push, to delete a branch, to follow a repository to another
// host, and to check out what would lie outside of a directory or pass for git's own.
package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// ErrNone says that a directory is not inside a git work tree, or that the
// repository has no commit yet.
var ErrNone = errors.New("not a git work tree with a commit")

// Tree is an opened work tree.
type Tree struct {
	Root   string // absolute path of the work tree's top
	Commit string // hex object id of HEAD
	Ref    string // "refs/heads/main"; empty when HEAD is detached
	repo   *git.Repository
}

// Open finds the work tree that holds dir. It returns ErrNone outside one.
func Open(dir string) (*Tree, error) {
	repo, err := git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{DetectDotGit: true, EnableDotGitCommonDir: true})
	if errors.Is(err, git.ErrRepositoryNotExists) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("open the git repository of %s: %w", dir, err)
	}
	wt, err := repo.Worktree()
	if errors.Is(err, git.ErrIsBareRepository) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("open the work tree of %s: %w", dir, err)
	}
	head, err := repo.Head()
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("read HEAD of %s: %w", wt.Filesystem.Root(), err)
	}
	t := &Tree{Root: wt.Filesystem.Root(), Commit: head.Hash().String(), repo: repo}
	if head.Name().IsBranch() || head.Name().IsTag() {
		t.Ref = head.Name().String()
	}
	return t, nil
}

// Uncommitted counts what differs from the commit under the work tree: changed,
// staged and untracked files that no ignore rule covers.
func (t *Tree) Uncommitted(ctx context.Context) (int, error) {
	wt, err := t.repo.Worktree()
	if err != nil {
		return 0, fmt.Errorf("open the work tree %s: %w", t.Root, err)
	}
	status, err := wt.StatusWithOptions(git.StatusOptions{Strategy: git.Empty})
	if err != nil {
		return 0, fmt.Errorf("compare %s with its commit: %w", t.Root, err)
	}
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	n := 0
	for name, s := range status {
		if s.Worktree == git.Unmodified && s.Staging == git.Unmodified {
			continue
		}
		if s.Worktree == git.Modified && s.Staging == git.Unmodified {
			if same, err := t.asCheckedOut(name); err != nil {
				return 0, err
			} else if same {
				continue
			}
		}
		n++
	}
	return n, nil
}

// Tracked says of the files below a directory that git tracks whether they may be run,
// as a clone has them where file systems know that. Names are slash-separated, and
// relative to the directory.
func (t *Tree) Tracked(dir string) (map[string]bool, error) {
	below, err := filepath.Rel(t.Root, dir)
	if err != nil {
		return nil, err
	}
	index, err := t.repo.Storer.Index()
	if err != nil {
		return nil, fmt.Errorf("read the index of %s: %w", t.Root, err)
	}
	prefix := strings.TrimPrefix(filepath.ToSlash(below)+"/", "./")
	tracked := map[string]bool{}
	for _, e := range index.Entries {
		if name, ok := strings.CutPrefix(e.Name, prefix); ok && e.Mode.IsFile() {
			tracked[name] = e.Mode == filemode.Executable
		}
	}
	return tracked, nil
}

// asCheckedOut says whether a file is what git makes of the commit's by the line ends that
// .gitattributes asks for: go-git knows nothing of those.
func (t *Tree) asCheckedOut(name string) (bool, error) {
	known, err := t.attributesOf(name)
	if err != nil {
		return false, err
	}
	how := conversionOf(known.of(name))
	if !how.crlf || how.refuse != "" {
		return false, nil
	}
	blob, err := t.File(name)
	if err != nil {
		return false, err
	}
	now, err := os.ReadFile(filepath.Join(t.Root, filepath.FromSlash(name)))
	return bytes.Equal(how.convert(blob), now), err
}

// attributesOf reads the .gitattributes of a file's directory and those above it.
func (t *Tree) attributesOf(name string) (known *attributes, err error) {
	dir, rest := "", name
	for {
		at := filepath.Join(t.Root, filepath.FromSlash(dir), ".gitattributes")
		if info, err := os.Lstat(at); err == nil && info.Mode().IsRegular() {
			text, err := os.ReadFile(at)
			if err != nil {
				return nil, err
			}
			known = known.below(dir, text)
		}
		next, after, ok := strings.Cut(rest, "/")
		if !ok {
			return known, nil
		}
		dir, rest = path.Join(dir, next), after
	}
}

// Ignored lists the files in a directory or file of the work tree that are no
// part of the commit although git calls the tree clean: those that an ignore rule
// covers, and those of other repositories inside this one. dir is
// slash-separated and relative to Root, and so are the paths, which are sorted.
func (t *Tree) Ignored(ctx context.Context, dir string) ([]string, error) {
	index, err := t.repo.Storer.Index()
	if err != nil {
		return nil, fmt.Errorf("read the index of %s: %w", t.Root, err)
	}
	known := make(map[string]bool, len(index.Entries))
	for _, e := range index.Entries {
		known[e.Name] = true
	}
	var found []string
	err = filepath.WalkDir(filepath.Join(t.Root, filepath.FromSlash(dir)), func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		rel, err := t.Rel(path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && rel == git.GitDirName:
			return fs.SkipDir
		case !d.IsDir() && !known[rel] && rel != git.GitDirName: // a file of that name is a work tree's, see git-worktree(1)
			found = append(found, rel)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for ignored files in %s: %w", dir, err)
	}
	return found, nil
}

// File reads a file as it is in the commit. path is slash-separated, relative to Root.
func (t *Tree) File(path string) ([]byte, error) {
	tree, err := t.tree(t.Commit)
	if err != nil {
		return nil, err
	}
	f, err := tree.File(path)
	if err != nil {
		return nil, fmt.Errorf("read %s at commit %.12s: %w", path, t.Commit, err)
	}
	text, err := f.Contents()
	if err != nil {
		return nil, fmt.Errorf("read %s at commit %.12s: %w", path, t.Commit, err)
	}
	return []byte(text), nil
}

// Origin is the URL of the remote called origin, without the credentials that
// may stand in it; empty where there is none.
func (t *Tree) Origin() (string, error) {
	remote, err := t.repo.Remote(git.DefaultRemoteName)
	if errors.Is(err, git.ErrRemoteNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the remotes of %s: %w", t.Root, err)
	}
	for _, u := range remote.Config().URLs {
		return withoutCredentials(u), nil
	}
	return "", nil
}

// withoutCredentials drops what may be secret in a clone URL: what stands before
// the host in one of the web, a password elsewhere, and a query. A user alone, as
// in git@host:path and ssh://git@host/path, is part of the address.
func withoutCredentials(remote string) string {
	u, err := url.Parse(remote)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return remote
	}
	switch {
	case u.Scheme == "http" || u.Scheme == "https":
		u.User = nil
	case u.User != nil:
		u.User = url.User(u.User.Username())
	}
	u.RawQuery, u.Fragment = "", ""
	return u.String()
}

// Changed lists the slash-separated paths that differ between revision base and
// HEAD, sorted, both names of a rename included.
func (t *Tree) Changed(ctx context.Context, base string) ([]string, error) {
	from, err := t.tree(base)
	if err != nil {
		return nil, err
	}
	to, err := t.tree(t.Commit)
	if err != nil {
		return nil, err
	}
	paths, err := changed(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("compare %s with %s: %w", base, t.Commit, err)
	}
	return paths, nil
}

func (t *Tree) tree(revision string) (*object.Tree, error) {
	hash, err := t.repo.ResolveRevision(plumbing.Revision(revision))
	if err != nil {
		return nil, fmt.Errorf("no commit %q in %s: %w; fetch it, or name another base", revision, t.Root, err)
	}
	commit, err := t.repo.CommitObject(*hash)
	if err != nil {
		return nil, fmt.Errorf("read commit %s: %w", hash, err)
	}
	return commit.Tree()
}

// Rel gives path as the repository names it: slash-separated, relative to Root.
func (t *Tree) Rel(path string) (string, error) {
	rel, err := filepath.Rel(t.Root, path)
	if err != nil {
		return "", fmt.Errorf("%s is not inside %s: %w", path, t.Root, err)
	}
	return filepath.ToSlash(rel), nil
}
