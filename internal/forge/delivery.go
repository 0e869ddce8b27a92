package forge

import (
	"slipway/pipeline"
)

// Delivery is one webhook whose signature holds.
type Delivery struct {
	// ID is the same when the forge sends the delivery again, but not when somebody presses
	// "Redeliver" in Gitea: then the Changes alone are the same. Where a forge gives none it is
	// "sha256-" and the digest of event and body.
	ID      string
	Event   string   // as the forge calls it
	Ping    bool     // the forge tries out whether somebody answers
	Repo    Repo     // zero where the event is not about a repository
	Changes []Change // what happened to refs; also deletions and closed pull requests
	Ignored string   // why nothing is to be run; empty for a ping, and when one of Changes runs
}

// Repo is what a payload says about its repository. It is for comparing with the registered
// one only: nothing is ever cloned from it.
type Repo struct {
	FullName string // "owner/name" (GitLab: the whole path; Data Center: "PROJECT/slug")
	CloneURL string // https; empty where the forge does not send it
}

// The actions of a Change on a pull request, whatever the forge's word is.
const (
	Opened      = "opened"
	Synchronize = "synchronize" // its source has new commits
	Reopened    = "reopened"
	Retargeted  = "retargeted" // its target is another branch now
	Closed      = "closed"     // merged or not
)

// Change is what happened to one ref.
type Change struct {
	// Event has Kind, Ref, Base, Commit and Trusted; Repo and Changed are left to the caller.
	//
	// Commit is what Ref points to, in full. It may be an annotated tag's own object where the
	// forge tells no other, and is empty for what was deleted, and for a pull request of
	// Bitbucket Cloud, which sends CommitPrefix.
	Event pipeline.Event

	// Before and After are what Ref pointed to, all zeros for nothing, as `git ls-remote` shows
	// it. Before is empty where it is not told (Gitea's deleted branches), and for pull requests, so that a redelivery and a reconciler see one run;
	// After is CommitPrefix where that is all there is. Two pull requests of Bitbucket Cloud can
	// have one Ref: PullRequest tells them apart.
	Before, After string

	CommitPrefix string // 12 digits that the commit begins with, where no more is known
	Deleted      bool
	Message      string // of the head commit, cut after 8 KiB; empty where the forge does not send it
	Author       string // the account that pushed, or opened the pull request (GitLab: or changed it)
	PullRequest  int    // its number; 0 for a push
	Action       string // of a pull request: Opened and so on
	Source       string // full name of the repository a pull request comes from; empty when it is gone
}

// Runs says whether the change left something to build.
func (c Change) Runs() bool { return !c.Deleted && c.Action != Closed }

// finish says why a delivery runs nothing, when nothing in it does and no reason is there yet.
func (d *Delivery) finish() {
	if d.Ping || d.Ignored != "" {
		return
	}
	for _, c := range d.Changes {
		if c.Runs() {
			return
		}
	}
	switch {
	case len(d.Changes) == 0:
		d.Ignored = "no branch or tag changed"
	case d.Changes[0].Deleted:
		d.Ignored = d.Changes[0].Event.Ref + " was deleted"
	default:
		d.Ignored = "the pull request was closed"
	}
}
