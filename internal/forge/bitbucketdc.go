package forge

import (
	"fmt"
	"net/http"
	"strings"
)

// dcRepo is a repository as Bitbucket Data Center describes it.
type dcRepo struct {
	ID      int64  `json:"id"`
	Slug    string `json:"slug"`
	Project struct {
		Key string `json:"key"`
	} `json:"project"`
	Links struct {
		Clone []struct {
			Name string `json:"name"`
			Href string `json:"href"`
		} `json:"clone"`
	} `json:"links"` // newer versions only
}

func (r dcRepo) fullName() string {
	if r.Project.Key == "" || r.Slug == "" {
		return ""
	}
	return r.Project.Key + "/" + r.Slug
}

func (r dcRepo) repo() (Repo, error) {
	clone := ""
	for _, l := range r.Links.Clone {
		if l.Name == "http" || l.Name == "https" {
			clone = l.Href
		}
	}
	return repo(r.fullName(), clone)
}

type dcAccount struct {
	Name string `json:"name"`
}

// dcPush is one push, which may have moved many refs.
type dcPush struct {
	Actor      dcAccount `json:"actor"`
	Repository dcRepo    `json:"repository"`
	Changes    []struct {
		RefID string `json:"refId"`
		From  string `json:"fromHash"`
		To    string `json:"toHash"`
	} `json:"changes"`
	ToCommit *struct {
		ID      string `json:"id"`
		Message string `json:"message"`
	} `json:"toCommit"` // newer versions only
}

// dcPull is what happened to a pull request.
type dcPull struct {
	PullRequest *struct {
		ID     int `json:"id"`
		Author struct {
			User dcAccount `json:"user"`
		} `json:"author"`
		From dcEnd `json:"fromRef"`
		To   dcEnd `json:"toRef"`
	} `json:"pullRequest"`
	PreviousTarget *struct {
		ID string `json:"id"`
	} `json:"previousTarget"`
}

type dcEnd struct {
	ID         string `json:"id"`
	Commit     string `json:"latestCommit"`
	Repository dcRepo `json:"repository"`
}

// dcActions are Data Center's words for what concerns a build, but for "pr:modified".
var dcActions = map[string]string{
	"pr:opened": Opened, "pr:from_ref_updated": Synchronize, "pr:reopened": Reopened,
	"pr:merged": Closed, "pr:declined": Closed, "pr:deleted": Closed,
}

// parseBitbucketDC: https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html
func parseBitbucketDC(d *Delivery, _ http.Header, body []byte) error {
	switch {
	case d.Event == "diagnostics:ping":
		d.Ping = true
		return nil
	case d.Event == "repo:refs_changed":
		return parseDCPush(d, body)
	case dcActions[d.Event] != "" || d.Event == "pr:modified":
		return parseDCPull(d, body)
	}
	d.Ignored = unused(d.Event)
	var p struct {
		Repository dcRepo `json:"repository"`
	}
	if err := decode(body, &p); err != nil || p.Repository.fullName() == "" {
		return err
	}
	var err error
	d.Repo, err = p.Repository.repo()
	return err
}

func parseDCPush(d *Delivery, body []byte) error {
	var p dcPush
	err := decode(body, &p)
	if err != nil {
		return err
	}
	if d.Repo, err = p.Repository.repo(); err != nil {
		return err
	}
	for _, c := range p.Changes {
		message := ""
		if p.ToCommit != nil && p.ToCommit.ID == c.To {
			message = p.ToCommit.Message
		}
		if err := d.add(c.RefID, c.From, c.To, "", message, p.Actor.Name); err != nil {
			return err
		}
	}
	return nil
}

func parseDCPull(d *Delivery, body []byte) error {
	var p dcPull
	err := decode(body, &p)
	if err != nil {
		return err
	}
	pr := p.PullRequest
	if pr == nil {
		return malformed("it has no pullRequest")
	}
	if d.Repo, err = pr.To.Repository.repo(); err != nil {
		return err
	}
	base, ok := strings.CutPrefix(pr.To.ID, "refs/heads/")
	if !ok {
		return malformed("the pull request's target %.200q is no branch", pr.To.ID)
	}
	action := dcActions[d.Event]
	if d.Event == "pr:modified" && p.PreviousTarget != nil && p.PreviousTarget.ID != pr.To.ID {
		action = Retargeted
	}
	return d.pull(pull{
		action: action, did: strings.TrimPrefix(d.Event, "pr:"), number: pr.ID, base: base, commit: pr.From.Commit,
		ref: fmt.Sprintf("refs/pull-requests/%d/from", pr.ID), author: pr.Author.User.Name, source: pr.From.Repository.fullName(),
		trusted: pr.From.Repository.ID != 0 && pr.From.Repository.ID == pr.To.Repository.ID,
	})
}
