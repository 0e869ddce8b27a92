// Package forge speaks with the places that hold repositories: it reads their
// webhooks, posts the state of a commit to them, and sends signed webhooks of
// slipway's own.
//
// It refuses:
//   - to look into a body before its signature holds (Read; a form is opened where Gitea signs
//     what is in it), or to accept a hook without a secret;
//   - to take a clone URL from a payload: Repo is for comparing with what is registered, and
//     pipeline.Event.Repo stays empty for the caller to fill in from there;
//   - to call a change trusted unless it was made in the repository itself: a pull request whose
//     source is another repository, or one that is gone, is not;
//   - to fall back to a weaker proof when a stronger one is there and wrong;
//   - to follow redirects with a token.
//
// Delivery ids and event names stand in headers, which only GitLab and the generic scheme sign.
// Whoever has seen a signed body can send it again under another id: what keeps that from running
// twice is the run's own key (repository, kind, ref, before, after), not the id.
package forge

import (
	"fmt"
	"net/http"
	"strings"
)

// Kind is a forge by the protocol it speaks, not by its address.
type Kind string

// The forges.
const (
	GitHub      Kind = "github" // also GitHub Enterprise Server
	GitLab      Kind = "gitlab"
	Bitbucket   Kind = "bitbucket"    // Bitbucket Cloud
	BitbucketDC Kind = "bitbucket-dc" // Bitbucket Data Center
	Gitea       Kind = "gitea"
	Forgejo     Kind = "forgejo"
	Generic     Kind = "generic" // anything that can sign a small JSON document (see generic.go)
)

// Kinds lists every forge, in the order in which help should.
func Kinds() []Kind {
	return []Kind{GitHub, GitLab, Bitbucket, BitbucketDC, Gitea, Forgejo, Generic}
}

// ParseKind reads a kind as people write it in a file or a flag.
func ParseKind(s string) (Kind, error) {
	names := make([]string, 0, len(Kinds()))
	for _, k := range Kinds() {
		if string(k) == s {
			return k, nil
		}
		names = append(names, string(k))
	}
	return "", fmt.Errorf("no forge is called %q; it is one of %s", s, strings.Join(names, ", "))
}

// Detect says which forge's headers these are. It is for telling a user that a hook was pasted
// into another forge than it was registered for: what Read does is decided by the registration.
//
// The order matters: Forgejo also sends Gitea's headers, and both send those of Gogs and GitHub.
// Gogs itself is known well enough not to be taken for GitHub, and not supported.
func Detect(h http.Header) (Kind, bool) {
	has := func(name string) bool { return h.Get(name) != "" }
	switch {
	case has("X-Forgejo-Event"):
		return Forgejo, true
	case has("X-Gitea-Event"):
		return Gitea, true
	case has("X-Gogs-Event"):
		return "", false
	case has("X-GitHub-Event"):
		return GitHub, true
	case has("X-Gitlab-Event"):
		return GitLab, true
	case has("X-Event-Key") && (has("X-Request-UUID") || has("X-Hook-UUID")):
		return Bitbucket, true
	case has("X-Event-Key"):
		return BitbucketDC, true
	case has("Webhook-Id") && has("Webhook-Signature"):
		return Generic, true
	}
	return "", false
}
