package forge

import (
	"fmt"
	"net/http"
)

// githubRepo is a repository as GitHub, Gitea and Forgejo describe it.
type githubRepo struct {
	ID       int64  `json:"id"`
	FullName string `json:"full_name"`
	CloneURL string `json:"clone_url"`
}

// githubAccount is a user as all three describe it.
type githubAccount struct {
	Login    string `json:"login"`
	Name     string `json:"name"`     // the pusher of GitHub's pushes has no more
	UserName string `json:"username"` // Gitea, before 1.20 without login in some events
}

func (a githubAccount) name() string {
	return nonEmpty(a.Login, nonEmpty(a.UserName, a.Name))
}

// githubPush is a push to a branch or tag, of GitHub, Gitea and Forgejo.
type githubPush struct {
	Ref        string        `json:"ref"`
	Before     string        `json:"before"`
	After      string        `json:"after"`
	Repository githubRepo    `json:"repository"`
	Pusher     githubAccount `json:"pusher"`
	Sender     githubAccount `json:"sender"`
	HeadCommit *struct {
		ID      string `json:"id"`
		Message string `json:"message"`
	} `json:"head_commit"`
}

// githubPull is what happened to a pull request, of GitHub, Gitea and Forgejo.
type githubPull struct {
	Action  string `json:"action"`
	Number  int    `json:"number"`
	Changes struct {
		Base *struct{} `json:"base"` // GitHub: the target that it had before
		Ref  *struct{} `json:"ref"`  // Gitea
	} `json:"changes"`
	PullRequest *struct {
		User githubAccount `json:"user"`
		Head githubEnd     `json:"head"`
		Base githubEnd     `json:"base"`
	} `json:"pull_request"`
	Repository githubRepo `json:"repository"`
}

// githubEnd is where a pull request comes from, or where it goes.
type githubEnd struct {
	Ref  string      `json:"ref"`
	SHA  string      `json:"sha"`
	Repo *githubRepo `json:"repo"` // null when the fork was deleted
}

// parseGitHub: https://docs.github.com/en/webhooks/webhook-events-and-payloads
func parseGitHub(d *Delivery, _ http.Header, body []byte) error {
	switch d.Event {
	case "ping":
		d.Ping = true
		return parseAbout(d, body)
	case "push":
		return parseGitHubPush(d, body)
	case "pull_request":
		return parseGitHubPull(d, body)
	default:
		d.Ignored = unused(d.Event)
		return parseAbout(d, body)
	}
}

// unused is why an event runs nothing.
func unused(event string) string {
	return fmt.Sprintf("slipway does nothing on events %q; the webhook needs only pushes and pull requests", event)
}

// parseAbout reads no more than which repository an event is about, if any.
func parseAbout(d *Delivery, body []byte) error {
	var p struct {
		Repository githubRepo `json:"repository"`
	}
	if err := decode(body, &p); err != nil || p.Repository.FullName == "" {
		return err
	}
	var err error
	d.Repo, err = repo(p.Repository.FullName, p.Repository.CloneURL)
	return err
}

func parseGitHubPush(d *Delivery, body []byte) error {
	var p githubPush
	err := decode(body, &p)
	if err != nil {
		return err
	}
	if d.Repo, err = repo(p.Repository.FullName, p.Repository.CloneURL); err != nil {
		return err
	}
	message, commit := "", ""
	if p.HeadCommit != nil {
		message, commit = p.HeadCommit.Message, p.HeadCommit.ID
	}
	return d.add(p.Ref, p.Before, p.After, commit, message, nonEmpty(p.Pusher.name(), p.Sender.name()))
}

// githubActions are GitHub's words for what concerns a build.
var githubActions = map[string]string{
	"opened": Opened, "synchronize": Synchronize, "reopened": Reopened, "closed": Closed,
}

func parseGitHubPull(d *Delivery, body []byte) error {
	var p githubPull
	if err := decode(body, &p); err != nil {
		return err
	}
	action := githubActions[p.Action]
	if p.Action == "edited" && p.Changes.Base != nil {
		action = Retargeted
	}
	return pullLikeGitHub(d, p, action)
}

// pullLikeGitHub reads a pull request in the shape that GitHub, Gitea and Forgejo share.
func pullLikeGitHub(d *Delivery, p githubPull, action string) error {
	var err error
	if d.Repo, err = repo(p.Repository.FullName, p.Repository.CloneURL); err != nil {
		return err
	}
	if p.PullRequest == nil {
		return malformed("it has no pull_request")
	}
	pr := p.PullRequest
	got := pull{
		action: action, did: p.Action, number: p.Number, base: pr.Base.Ref, commit: pr.Head.SHA,
		ref: fmt.Sprintf("refs/pull/%d/head", p.Number), author: pr.User.name(),
	}
	if pr.Head.Repo != nil {
		got.source = pr.Head.Repo.FullName
		got.trusted = pr.Head.Repo.ID != 0 && pr.Head.Repo.ID == p.Repository.ID &&
			pr.Head.Repo.FullName == p.Repository.FullName
	}
	return d.pull(got)
}
