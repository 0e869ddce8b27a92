package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// Access says how repositories are reached.
type Access struct {
	// Copies is a directory for the objects of remote repositories, kept between
	// commands so that only new ones are fetched. It may be removed at any time
	// that nothing reads from it.
	Copies string
	// Token is the password, and User its name, for https; without one, those in the address count.
	User, Token string
	// SSHKey is the file of a private key for ssh; empty: the agent's keys.
	SSHKey string
}

// Repository is a repository on this machine, which is read where it is, or a
// remote one, whose objects are copied. Its methods take commits by their hex
// object id. It is for one goroutine.
type Repository struct {
	address  string
	endpoint *transport.Endpoint
	access   Access
	local    bool
	objects  storer.EncodedObjectStorer // of the last Head
}

// ErrNoBranch says that a repository has no such branch yet.
var ErrNoBranch = errors.New("no such branch")

// At names a repository by a directory, a file:// or https:// URL, or an address
// of ssh in either form. Nothing is read yet.
func At(address string, access Access) (*Repository, error) {
	if dir, ok := strings.CutPrefix(address, "file://"); ok {
		address = dir
	}
	endpoint, err := transport.NewEndpoint(address)
	if err != nil {
		return nil, fmt.Errorf("the address of a git repository, %q: %w; write a directory, https://HOST/PATH or ssh://USER@HOST/PATH", address, err)
	}
	r := &Repository{address: address, endpoint: endpoint, access: access}
	switch endpoint.Protocol {
	case "file":
		r.local = true
		if r.address, err = filepath.Abs(endpoint.Path); err != nil {
			return nil, fmt.Errorf("the git repository %s: %w", address, err)
		}
		endpoint.Path = r.address
	case "https", "http", "ssh":
	default:
		return nil, fmt.Errorf("the git repository %s: %s is not a way that slipway goes; use https or ssh", r, endpoint.Protocol)
	}
	return r, nil
}

// String is the address without a password.
func (r *Repository) String() string {
	if r.endpoint.Password == "" {
		return r.address
	}
	return strings.Replace(r.address, ":"+r.endpoint.Password+"@", "@", 1)
}

// Head gives the commit that a branch is at now, and makes it readable with all
// that led to it. The error is an ErrNoBranch where there is none.
func (r *Repository) Head(ctx context.Context, branch string) (string, error) {
	if r.local {
		return r.localHead(branch)
	}
	return r.fetch(ctx, branch)
}

func (r *Repository) localHead(branch string) (string, error) {
	repo, err := git.PlainOpenWithOptions(r.address, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if errors.Is(err, git.ErrRepositoryNotExists) {
		return "", fmt.Errorf("no git repository at %s: %w", r.address, fs.ErrNotExist)
	}
	if err != nil {
		return "", fmt.Errorf("open the git repository %s: %w", r.address, err)
	}
	r.objects = repo.Storer
	ref, err := repo.Reference(plumbing.NewBranchReferenceName(branch), true)
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return "", fmt.Errorf("%s: %s: %w", r.address, branch, ErrNoBranch)
	}
	if err != nil {
		return "", fmt.Errorf("read %s of %s: %w", branch, r.address, err)
	}
	return ref.Hash().String(), nil
}

// Create makes an empty bare repository at dir, unless there is one. It is
// complete when it has its name, so that a crash leaves none or a whole one. git
// is told to put all of it on the disk before it says that a push is done, and to
// refuse what would rewrite or remove a branch.
func Create(dir, branch string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".new-*.git")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }() // gone after the rename
	for _, sub := range []string{"objects/info", "objects/pack", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(temp, sub), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"HEAD":        "ref: refs/heads/" + branch + "\n",
		"description": "What runs where: written by slipway promote.\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n\tfsync = all\n\tlogAllRefUpdates = true\n" +
			"[receive]\n\tfsckObjects = true\n\tdenyNonFastForwards = true\n\tdenyDeletes = true\n",
	} {
		if err := os.WriteFile(filepath.Join(temp, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	err = os.Rename(temp, dir)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process made it
	}
	return err
}
