package forge

import (
	"net/http"
	"strings"

	"slipway/pipeline"
)

// parseGitea reads what Gitea and Forgejo send (modules/structs/hook.go): GitHub's shapes with
// words of their own, and a `secret` in old ones that is never looked at.
//
// A tag or branch comes as a push and as `create`, the end of a tag as a push of zeros and as
// `delete`: the pushes count. The end of a branch comes as `delete` alone.
func parseGitea(d *Delivery, _ http.Header, body []byte) error {
	switch d.Event {
	case "push":
		return parseGiteaPush(d, body)
	case "pull_request":
		return parseGiteaPull(d, body)
	case "delete":
		return parseGiteaDelete(d, body)
	case "create":
		d.Ignored = "a push says the same"
	default:
		d.Ignored = unused(d.Event)
	}
	return parseAbout(d, body)
}

// parseGiteaPush takes a push that moves nothing for what it is: the button "Test delivery", which
// sends the head of the default branch (services/webhook, TestWebhook).
func parseGiteaPush(d *Delivery, body []byte) error {
	if err := parseGitHubPush(d, body); err != nil {
		return err
	}
	if len(d.Changes) == 1 && d.Changes[0].Before == d.Changes[0].After {
		d.Ping, d.Changes = true, nil
	}
	return nil
}

// parseGiteaDelete makes the end of a branch a Change; what the branch pointed to is not told.
func parseGiteaDelete(d *Delivery, body []byte) error {
	var p struct {
		Ref     string        `json:"ref"` // without refs/heads/
		RefType string        `json:"ref_type"`
		Sender  githubAccount `json:"sender"`
	}
	if err := parseAbout(d, body); err != nil {
		return err
	}
	if err := decode(body, &p); err != nil {
		return err
	}
	if p.RefType != "branch" || d.Repo.FullName == "" {
		d.Ignored = "a push says the same"
		return nil
	}
	ref := "refs/heads/" + strings.TrimPrefix(p.Ref, "refs/heads/")
	if err := checkRef(ref); err != nil {
		return err
	}
	d.Changes = []Change{{
		Event: pipeline.Event{Kind: pipeline.Push, Ref: ref, Trusted: true},
		After: noObject, Deleted: true, Author: account(p.Sender.name()),
	}}
	return nil
}

// giteaActions are Gitea's words for what concerns a build.
var giteaActions = map[string]string{
	"opened": Opened, "synchronized": Synchronize, "reopened": Reopened, "closed": Closed,
}

func parseGiteaPull(d *Delivery, body []byte) error {
	var p githubPull
	if err := decode(body, &p); err != nil {
		return err
	}
	action := giteaActions[p.Action]
	if p.Action == "edited" && p.Changes.Ref != nil {
		action = Retargeted
	}
	return pullLikeGitHub(d, p, action)
}
