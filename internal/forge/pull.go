package forge

import (
	"strings"

	"slipway/pipeline"
)

// pull is a pull request as every forge tells it, before it is checked.
type pull struct {
	action   string // one of Opened and so on; empty: nothing that concerns a build
	did      string // the forge's own word for the action
	number   int
	ref      string // where the repository itself holds its head
	base     string // target branch, without refs/heads/
	commit   string
	prefix   string // instead of commit
	trusted  bool
	source   string // full name of the repository it comes from
	author   string
	message  string
	fetching string // why its commits cannot be had, if so
}

// pull puts the Change of a pull request into d, or the reason why there is none.
func (d *Delivery) pull(p pull) error {
	if p.action == "" {
		d.Ignored = "a pull request was " + nonEmpty(account(p.did), "touched") + ": its commits and target are the same"
		return nil
	}
	if p.number <= 0 {
		return malformed("the pull request has no number")
	}
	if err := checkRef("refs/heads/" + p.base); err != nil {
		return err
	}
	if err := checkRef(p.ref); err != nil {
		return err
	}
	if err := plain("the source's name", p.source, maxName); err != nil {
		return err
	}
	if p.prefix == "" || p.commit != "" {
		if err := checkCommit("head:", p.commit); err != nil {
			return err
		}
		if isZero(p.commit) {
			return malformed("the pull request has no head")
		}
	}
	if p.fetching != "" {
		d.Ignored = p.fetching
		return nil
	}
	d.Changes = append(d.Changes, Change{
		Event: pipeline.Event{
			Kind: pipeline.PullRequest, Ref: p.ref, Base: p.base, Commit: p.commit,
			Trusted: p.trusted && p.source != "",
		},
		After: nonEmpty(p.commit, p.prefix), CommitPrefix: p.prefix, Message: cut(p.message, maxMessage), Author: account(p.author),
		PullRequest: p.number, Action: p.action, Source: p.source,
	})
	return nil
}

func nonEmpty(s, otherwise string) string {
	if s = strings.TrimSpace(s); s != "" {
		return s
	}
	return otherwise
}
