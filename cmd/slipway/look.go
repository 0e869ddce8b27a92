//go:build linux && !client

package main

import (
	"context"
	"time"

	"slipway/internal/git"
	"slipway/internal/ledger"
)

// look asks a repository where its branches and tags are, as `git ls-remote` does.
func (v *serving) look(ctx context.Context, repo ledger.Repo) (map[string]string, error) {
	refs, err := v.remoteOf(repo, v.flags.policy(), v.flags.knownHosts).List(ctx, git.Limits{Time: time.Minute}, "refs/heads/", "refs/tags/")
	return refs.At, err
}
