//go:build linux && !client

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/attest"
	"slipway/internal/engine"
	"slipway/internal/git"
	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/pipeline"
)

// checkout is a commit that a server has fetched, written out for one run.
type checkout struct {
	mirror *git.Mirror
	commit git.Commit
	url    string // without credentials
	dir    string // absolute
	event  pipeline.Event
	skip   string // why nothing is to be run
}

// remoteOf says how a repository is reached. A credential that begins as a key
// does is one for ssh; else it is a token, or USER:TOKEN.
func (g *globals) remoteOf(repo ledger.Repo, policy git.Policy, knownHosts string) git.Remote {
	r := git.Remote{URL: repo.URL, Policy: policy, KnownHosts: knownHosts}
	switch {
	case bytes.HasPrefix(repo.Credential, []byte("-----BEGIN")):
		r.SSHKey = repo.Credential
	case len(repo.Credential) > 0:
		user, token, both := strings.Cut(string(repo.Credential), ":")
		if !both {
			user, token = "", user
		}
		r.User, r.Token = user, token
	}
	return r
}

// fetchCommit fetches the commit of a run and what it is compared with, and
// writes its files to dir. The error is a server.Away where asking again may help.
func fetchCommit(ctx context.Context, mirror *git.Mirror, remote git.Remote, run ledger.Run, dir string) (c checkout, err error) {
	c = checkout{mirror: mirror, url: remote.URL, dir: dir}
	if c.commit, err = fetchOne(ctx, mirror, remote, run); err != nil {
		return c, away(err)
	}
	c.event = pipeline.Event{Kind: run.Kind, Repo: remote.URL, Ref: run.Ref, Base: run.Base, Commit: c.commit.ID, Trusted: run.Trusted}
	if run.Kind == pipeline.Schedule {
		c.event.Base, c.event.Name = "", run.Base
	}
	if c.skip = c.skipped(run); c.skip != "" {
		return c, nil
	}
	if c.event.Changed, err = c.changed(ctx, remote, run); err != nil {
		return c, away(err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return c, err
	}
	return c, mirror.Checkout(ctx, c.commit.ID, dir)
}

// final says that asking again gives the same.
func final(err error) bool {
	var gone *git.NotThere
	return errors.As(err, &gone) || errors.Is(err, git.ErrAddress) || errors.Is(err, git.ErrDenied) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOSPC)
}

// away says that asking again may give something else.
func away(err error) error {
	if final(err) {
		return err
	}
	var unreachable net.Error
	return &server.Away{Err: err, All: errors.As(err, &unreachable)}
}

// fetchOne fetches the commit; after a forced push no ref may have it any more.
func fetchOne(ctx context.Context, mirror *git.Mirror, remote git.Remote, run ledger.Run) (git.Commit, error) {
	commit := run.Commit
	if len(commit) < 40 {
		commit = "" // Bitbucket tells the first digits alone
	}
	c, err := mirror.Fetch(ctx, remote, run.Ref, commit)
	var gone *git.NotThere
	if errors.As(err, &gone) && commit != "" {
		if err := mirror.FetchAny(ctx, remote, commit); err != nil {
			return c, err
		}
		return mirror.Commit(commit)
	}
	if err == nil && !strings.HasPrefix(c.ID, run.Commit) && commit == "" {
		err = fmt.Errorf("%s has moved on from %s to %.12s", run.Ref, run.Commit, c.ID)
	}
	return c, err
}

// changed lists the paths that a push or a pull request changed; nil: nobody knows, all may have.
func (c checkout) changed(ctx context.Context, remote git.Remote, run ledger.Run) ([]string, error) {
	base, err := run.Before, error(nil)
	switch {
	case run.Kind == pipeline.PullRequest && run.Base != "":
		base, err = c.mirror.Base(ctx, remote, git.Point{Ref: "refs/heads/" + run.Base}, git.Point{Ref: run.Ref, Commit: c.commit.ID})
	case run.Kind == pipeline.Push && len(base) >= 40 && strings.Trim(base, "0") != "":
		err = c.mirror.FetchAny(ctx, remote, base)
	default:
		return nil, nil
	}
	if err == nil {
		var paths []string
		if paths, err = c.mirror.Changed(ctx, base, c.commit.ID); err == nil && paths == nil {
			paths = []string{}
		}
		if err == nil {
			return paths, nil
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if final(err) {
		return nil, nil
	}
	return nil, err
}

// skipWords in the message of a commit say that nobody wants a run of it.
var skipWords = []string{"[skip ci]", "[ci skip]", "[no ci]"}

func (c checkout) skipped(run ledger.Run) string {
	if run.Kind != pipeline.Tag && run.Kind != pipeline.Schedule {
		for _, word := range skipWords {
			if strings.Contains(strings.ToLower(c.commit.Message), word) {
				return "the commit's message says " + word
			}
		}
	}
	if run.Kind == pipeline.Push && c.promotes(run.Before) {
		return "it only promotes what was tested before"
	}
	return ""
}

// promotes says whether all that was pushed are promotions: what they put into
// environment files was built from other commits.
func (c checkout) promotes(before string) bool {
	at := c.commit
	for range 50 {
		if !isPromotion(at) {
			return false
		}
		if strings.Trim(before, "0") == "" || len(at.Parents) != 1 || at.Parents[0] == before {
			return len(at.Parents) == 1
		}
		var err error
		if at, err = c.mirror.Commit(at.Parents[0]); err != nil {
			return false
		}
	}
	return false
}

func isPromotion(c git.Commit) bool {
	for _, t := range git.Trailers(c.Message) {
		if t.Key == "Slipway-Promotion" {
			return true
		}
	}
	return false
}

// source implements committed: it is the commit's by its making.
func (c checkout) source(_ context.Context, ev pipeline.Event) (s attest.Source, file []byte, err error) {
	if !ev.Trusted {
		return s, nil, errors.New("it is a fork's")
	}
	s = attest.Source{Repository: c.url, Pipeline: pipelineFile, Commit: ev.Commit, Event: ev.Kind, Ref: ev.Ref, Base: ev.Base}
	file, err = readWithin(c.dir, pipelineFile)
	return s, file, err
}

// foreign implements committed. Nothing lies in the directory but the commit's files,
// unless a test wrote there: then what was tested beside it is not the commit.
func (c checkout) foreign(ctx context.Context, _ attest.Source, o engine.Observed) error {
	if !writes(o.Plan) {
		return nil
	}
	again := c.dir + ".again"
	if err := c.mirror.Checkout(ctx, c.commit.ID, again); err != nil {
		return err
	}
	path, err := differ(again, c.dir)
	if err == nil && path != "" {
		err = fmt.Errorf("a test changed %s of the commit's files; mount it read-only (:ro)", path)
	}
	return errors.Join(err, os.RemoveAll(again))
}

// writes says whether a test or service may write to files of the repository.
func writes(plan pipeline.Plan) bool {
	for _, task := range plan.Tasks {
		if task.Kind != pipeline.TestTask || task.Skip != "" {
			continue
		}
		for _, v := range volumesOf(plan, task) {
			if engine.Bind(v) && !v.ReadOnly {
				return true
			}
		}
	}
	return false
}

// differ names a path that is not the same in two trees; empty: there is none.
func differ(a, b string) (string, error) {
	seen, err := contents(a)
	if err != nil {
		return "", err
	}
	now, err := contents(b)
	if err != nil {
		return "", err
	}
	for path, was := range seen {
		if now[path] != was {
			return path, nil
		}
	}
	for path := range now {
		if _, ok := seen[path]; !ok {
			return path, nil
		}
	}
	return "", nil
}
