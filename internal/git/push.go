package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport/client"
)

// Moved says that a branch is no longer at the commit that a push expects there.
type Moved struct {
	Branch string
	To     string // the commit it is at now; empty: it is gone
}

func (m *Moved) Error() string {
	if m.To == "" {
		return m.Branch + " is gone"
	}
	return fmt.Sprintf("%s has moved on to commit %.12s", m.Branch, m.To)
}

// pushTime is how long a push may take. It is not cut off by who asked for it: a
// receiver that is killed leaves its locks behind.
const pushTime = 2 * time.Minute

// Push puts the branch from the base of a proposal to the proposal: both or
// nothing, and only where it is at that base (for the first commit: where there
// is no such branch). The error is a *Moved where it is not. A push that was cut
// off may have been done all the same: ask Head.
func (r *Repository) Push(ctx context.Context, branch string, p *Proposal) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pushTime)
	defer cancel()
	err := r.push(ctx, branch, p)
	if err != nil && r.removeStaleLock(branch) {
		err = r.push(ctx, branch, p)
	}
	if err == nil {
		return nil
	}
	var moved *Moved
	if errors.As(err, &moved) {
		return err
	}
	// What a refusal for this reason says differs between servers and versions: look.
	switch head, look := r.Head(ctx, branch); {
	case errors.Is(look, ErrNoBranch) && !p.base.IsZero():
		return &Moved{Branch: branch}
	case look == nil && head == p.ID:
		return nil
	case look == nil && head != idOf(p.base):
		return &Moved{Branch: branch, To: head}
	}
	return r.explain("push to "+branch+" of", err)
}

func idOf(h plumbing.Hash) string {
	if h.IsZero() {
		return ""
	}
	return h.String()
}

func (r *Repository) push(ctx context.Context, branch string, p *Proposal) (err error) {
	if r.local {
		if _, err := exec.LookPath("git-receive-pack"); err != nil {
			if _, err := exec.LookPath("git"); err != nil {
				return fmt.Errorf("%w; install git: slipway hands commits to its git-receive-pack", err)
			}
		}
	}
	pack, err := p.pack()
	if err != nil {
		return err
	}
	auth, err := r.auth()
	if err != nil {
		return err
	}
	c, err := client.NewClient(r.endpoint)
	if err != nil {
		return err
	}
	session, err := c.NewReceivePackSession(r.endpoint, auth)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	adv, err := session.AdvertisedReferencesContext(ctx)
	if err != nil {
		return err
	}
	name := plumbing.NewBranchReferenceName(branch)
	switch now := adv.References[name.String()]; now.String() {
	case p.ID: // an earlier push of the same was done after all
		return nil
	case p.base.String():
	default: // spare the other side the objects
		return &Moved{Branch: branch, To: idOf(now)}
	}
	req := packp.NewReferenceUpdateRequestFromCapabilities(adv.Capabilities)
	req.Commands = []*packp.Command{{Name: name, Old: p.base, New: plumbing.NewHash(p.ID)}}
	req.Packfile = io.NopCloser(pack)
	report, err := session.ReceivePack(ctx, req)
	if report != nil && report.Error() != nil {
		return &Denied{report.Error()}
	}
	return err
}

// Denied says that the other side has answered, and its answer is no: a hook, a
// protected branch, a full disk. Nothing was changed.
type Denied struct{ error }

func (d *Denied) Unwrap() error { return d.error }

// staleLock is an age that no lock of a living receiver has: it holds one while
// it writes a line and renames a file.
const staleLock = time.Minute

// removeStaleLock removes the lock that a machine that went down left on a
// branch of a repository that Create made; in others it is left to their owner.
func (r *Repository) removeStaleLock(branch string) bool {
	if !r.local || strings.Contains(branch, "..") {
		return false
	}
	if text, err := os.ReadFile(filepath.Join(r.address, "description")); err != nil || !strings.Contains(string(text), "slipway") {
		return false
	}
	lock := filepath.Join(r.address, "refs/heads", filepath.FromSlash(branch)+".lock")
	info, err := os.Lstat(lock)
	if errors.Is(err, fs.ErrNotExist) || err != nil || time.Since(info.ModTime()) < staleLock {
		return false
	}
	return os.Remove(lock) == nil
}
