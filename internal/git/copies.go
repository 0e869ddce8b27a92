package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/memory"
)

// copied holds objects of a remote repository. There are only objects in it, each
// under its own name, and the names of the commits whose history is whole: no
// ref, which go-git would write in a way that a crash can spoil. So any number
// of processes may read and add at the same time.
type copied struct {
	memory.ConfigStorage
	memory.IndexStorage
	memory.ShallowStorage
	memory.ReferenceStorage
	memory.ModuleStorage
	*filesystem.ObjectStorage

	dir      string
	incoming *filesystem.Storage // where a fetch writes, until it is whole
}

// AddAlternate implements go-git's storer; nothing calls it.
func (c *copied) AddAlternate(string) error { return errors.ErrUnsupported }

// PackfileWriter implements go-git's storer.PackfileWriter.
func (c *copied) PackfileWriter() (io.WriteCloser, error) { return c.incoming.PackfileWriter() }

func openCopied(dir string) (*copied, error) {
	for _, sub := range []string{"objects/pack", "whole"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	store := filesystem.NewStorage(osfs.New(dir), cache.NewObjectLRUDefault())
	return &copied{
		ReferenceStorage: memory.ReferenceStorage{}, ModuleStorage: memory.ModuleStorage{},
		ObjectStorage: &store.ObjectStorage, dir: dir,
	}, nil
}

// whole lists the commits that are here with their history, the newest first.
func (c *copied) whole() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(c.dir, "whole"))
	if err != nil {
		return nil, err
	}
	at := map[string]time.Time{}
	var names []string
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			at[e.Name()] = info.ModTime()
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return at[b].Compare(at[a]) })
	return names, nil
}

// maxHaves bounds what is said to a remote about what is here already.
const maxHaves = 32

// fetch copies what is new on a branch and gives the commit it is at.
func (r *Repository) fetch(ctx context.Context, branch string) (string, error) {
	sum := sha256.Sum256([]byte(r.String()))
	store, err := openCopied(filepath.Join(r.access.Copies, hex.EncodeToString(sum[:8])))
	if err != nil {
		return "", fmt.Errorf("make room for a copy of %s: %w", r, err)
	}
	auth, err := r.auth()
	if err != nil {
		return "", err
	}
	name := plumbing.NewBranchReferenceName(branch)
	head, err := r.advertised(ctx, name, auth)
	if err != nil {
		return "", err
	}
	r.objects = store
	known, err := store.whole()
	if err != nil || slices.Contains(known, head.String()) {
		return head.String(), err
	}
	for _, have := range known[:min(len(known), maxHaves)] {
		ref := plumbing.NewHashReference(plumbing.ReferenceName("refs/have/"+have), plumbing.NewHash(have))
		if err := store.SetReference(ref); err != nil {
			return "", err
		}
	}
	if err := r.fetchInto(ctx, store, name, auth); err != nil {
		return "", fmt.Errorf("fetch %s of %s: %w", branch, r, err)
	}
	ref, err := store.Reference("refs/got")
	if err != nil {
		return "", fmt.Errorf("fetch %s of %s: %w", branch, r, err)
	}
	return ref.Hash().String(), os.WriteFile(filepath.Join(store.dir, "whole", ref.Hash().String()), nil, 0o600)
}

// fetchInto fetches a branch as refs/got. The pack is written aside and put in
// its place when it and its index are whole.
func (r *Repository) fetchInto(ctx context.Context, store *copied, branch plumbing.ReferenceName, auth transport.AuthMethod) (err error) {
	removeOld(store.dir)
	aside, err := os.MkdirTemp(store.dir, "incoming-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()
	store.incoming = filesystem.NewStorage(osfs.New(aside), cache.NewObjectLRUDefault())
	remote := git.NewRemote(store, &config.RemoteConfig{Name: "origin", URLs: []string{r.address}})
	err = remote.FetchContext(ctx, &git.FetchOptions{
		RemoteName: "origin", Auth: auth, Tags: git.NoTags, Force: true,
		RefSpecs: []config.RefSpec{config.RefSpec("+" + branch.String() + ":refs/got")},
	})
	if err != nil && !errors.Is(err, git.NoErrAlreadyUpToDate) {
		return err
	}
	for _, end := range []string{".idx", ".pack"} { // a pack is found by its .pack
		files, err := filepath.Glob(filepath.Join(aside, "objects/pack/*"+end))
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Rename(f, filepath.Join(store.dir, "objects/pack", filepath.Base(f))); err != nil {
				return err
			}
		}
	}
	store.Reindex()
	return nil
}

// removeOld removes what fetches that were killed have left.
func removeOld(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, "incoming-*")) // the pattern is well-formed
	for _, l := range left {
		if info, err := os.Stat(l); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(l) // the next fetch tries again
		}
	}
}

// advertised asks the remote where a branch is.
func (r *Repository) advertised(ctx context.Context, branch plumbing.ReferenceName, auth transport.AuthMethod) (plumbing.Hash, error) {
	remote := git.NewRemote(memory.NewStorage(), &config.RemoteConfig{Name: "origin", URLs: []string{r.address}})
	refs, err := remote.ListContext(ctx, &git.ListOptions{Auth: auth})
	if err != nil && !errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return plumbing.ZeroHash, r.explain("read", err)
	}
	for _, ref := range refs {
		if ref.Name() == branch {
			return ref.Hash(), nil
		}
	}
	return plumbing.ZeroHash, fmt.Errorf("%s: %s: %w", r, branch.Short(), ErrNoBranch)
}
