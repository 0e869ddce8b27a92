package forge

import (
	"net/http"
	"strings"
)

// bitbucketRepo is a repository as Bitbucket Cloud describes it. It sends no clone URL.
type bitbucketRepo struct {
	FullName string `json:"full_name"`
	UUID     string `json:"uuid"`
}

func (r bitbucketRepo) repo() (Repo, error) {
	return repo(r.FullName, "https://bitbucket.org/"+r.FullName+".git")
}

// bitbucketRef is what a ref pointed to before a push, or does since.
type bitbucketRef struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	Target struct {
		Hash    string `json:"hash"`
		Message string `json:"message"`
	} `json:"target"`
}

// bitbucketPush is one push, which may have moved many refs.
type bitbucketPush struct {
	Repository bitbucketRepo    `json:"repository"`
	Actor      bitbucketAccount `json:"actor"`
	Push       struct {
		Changes []struct {
			Old *bitbucketRef `json:"old"`
			New *bitbucketRef `json:"new"` // null when it was deleted
		} `json:"changes"`
	} `json:"push"`
}

type bitbucketAccount struct {
	Nickname string `json:"nickname"`
	Username string `json:"username"` // no longer sent for people
	Name     string `json:"display_name"`
}

func (a bitbucketAccount) name() string {
	return nonEmpty(a.Nickname, nonEmpty(a.Username, a.Name))
}

// bitbucketPull is what happened to a pull request.
type bitbucketPull struct {
	Repository  bitbucketRepo `json:"repository"`
	PullRequest *struct {
		ID          int              `json:"id"`
		State       string           `json:"state"`
		Author      bitbucketAccount `json:"author"`
		Source      bitbucketEnd     `json:"source"`
		Destination bitbucketEnd     `json:"destination"`
	} `json:"pullrequest"`
}

type bitbucketEnd struct {
	Branch struct {
		Name string `json:"name"`
	} `json:"branch"`
	Commit *struct {
		Hash string `json:"hash"` // cut to 12 digits
	} `json:"commit"`
	Repository *bitbucketRepo `json:"repository"` // null when the fork is gone
}

// parseBitbucket: https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/
func parseBitbucket(d *Delivery, _ http.Header, body []byte) error {
	switch d.Event {
	case "repo:push":
		return parseBitbucketPush(d, body)
	case "pullrequest:created", "pullrequest:updated", "pullrequest:fulfilled", "pullrequest:rejected":
		return parseBitbucketPull(d, body)
	}
	d.Ignored = unused(d.Event)
	var p struct {
		Repository bitbucketRepo `json:"repository"`
	}
	if err := decode(body, &p); err != nil || p.Repository.FullName == "" {
		return err
	}
	var err error
	d.Repo, err = p.Repository.repo()
	return err
}

func parseBitbucketPush(d *Delivery, body []byte) error {
	var p bitbucketPush
	err := decode(body, &p)
	if err != nil {
		return err
	}
	if d.Repo, err = p.Repository.repo(); err != nil {
		return err
	}
	for _, c := range p.Push.Changes {
		if c.Old == nil && c.New == nil {
			return malformed("a change has neither old nor new")
		}
		name, before, after, message := c.New, noObject, noObject, ""
		if c.New == nil {
			name = c.Old
		} else {
			after, message = c.New.Target.Hash, c.New.Target.Message
		}
		if c.Old != nil {
			before = c.Old.Target.Hash
		}
		space, ok := bitbucketSpaces[name.Type]
		if !ok {
			continue // Mercurial's named_branch and bookmark, of long ago
		}
		if err := d.add(space+name.Name, before, after, "", message, p.Actor.name()); err != nil {
			return err
		}
	}
	return nil
}

// noObject is git's id for no object. Bitbucket says null instead.
const noObject = "0000000000000000000000000000000000000000"

// bitbucketSpaces are where refs of a type live.
var bitbucketSpaces = map[string]string{
	"branch": "refs/heads/", "tag": "refs/tags/", "annotated_tag": "refs/tags/",
}

// bitbucketActions are Bitbucket's words for what concerns a build. "updated" may also mean
// another title: then the commit is one that has its run.
var bitbucketActions = map[string]string{
	"pullrequest:created": Opened, "pullrequest:updated": Synchronize,
	"pullrequest:fulfilled": Closed, "pullrequest:rejected": Closed,
}

func parseBitbucketPull(d *Delivery, body []byte) error {
	var p bitbucketPull
	err := decode(body, &p)
	if err != nil {
		return err
	}
	if d.Repo, err = p.Repository.repo(); err != nil {
		return err
	}
	pr := p.PullRequest
	if pr == nil || pr.Source.Commit == nil {
		return malformed("it has no pullrequest.source.commit")
	}
	got := pull{
		action: bitbucketActions[d.Event], did: strings.TrimPrefix(d.Event, "pullrequest:"), number: pr.ID,
		base: pr.Destination.Branch.Name, ref: "refs/heads/" + pr.Source.Branch.Name, author: pr.Author.name(),
	}
	if d.Event == "pullrequest:updated" && pr.State != "" && pr.State != "OPEN" {
		got.action = ""
	}
	switch hash := pr.Source.Commit.Hash; {
	case len(hash) >= 12 && len(hash) < 40 && isHex(hash):
		got.prefix = hash
	default:
		got.commit = hash
	}
	if pr.Source.Repository != nil {
		got.source = pr.Source.Repository.FullName
		got.trusted = pr.Source.Repository.UUID == p.Repository.UUID && got.source == p.Repository.FullName
	}
	if !got.trusted {
		got.fetching = "Bitbucket Cloud keeps no ref of a fork's pull request in the repository itself, and slipway fetches from no other"
	}
	return d.pull(got)
}
