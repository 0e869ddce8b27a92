package forge

import (
	"fmt"
	"net/http"
)

// gitlabProject is a repository as GitLab describes it.
type gitlabProject struct {
	ID       int64  `json:"id"`
	FullName string `json:"path_with_namespace"`
	CloneURL string `json:"git_http_url"`
}

// gitlabPush is a push to a branch, or to a tag.
type gitlabPush struct {
	Ref     string        `json:"ref"`
	Before  string        `json:"before"`
	After   string        `json:"after"`        // of an annotated tag, the tag's own object
	Commit  string        `json:"checkout_sha"` // null for a deletion
	User    string        `json:"user_username"`
	Project gitlabProject `json:"project"`
	Commits []struct {
		ID      string `json:"id"`
		Message string `json:"message"`
	} `json:"commits"` // at most 20
}

// gitlabMerge is what happened to a merge request.
type gitlabMerge struct {
	User struct {
		Username string `json:"username"`
	} `json:"user"`
	Project    gitlabProject `json:"project"`
	Attributes *struct {
		Number     int            `json:"iid"`
		Action     string         `json:"action"`
		State      string         `json:"state"`
		OldRev     string         `json:"oldrev"` // there when an update brought commits
		Base       string         `json:"target_branch"`
		SourceID   int64          `json:"source_project_id"`
		TargetID   int64          `json:"target_project_id"`
		Source     *gitlabProject `json:"source"` // null when the fork is gone
		LastCommit *struct {
			ID      string `json:"id"`
			Message string `json:"message"`
		} `json:"last_commit"`
	} `json:"object_attributes"`
	Changes struct {
		Base *struct{} `json:"target_branch"`
	} `json:"changes"`
}

// parseGitLab: https://docs.gitlab.com/user/project/integrations/webhook_events/
func parseGitLab(d *Delivery, _ http.Header, body []byte) error {
	switch d.Event {
	case "Push Hook", "Tag Push Hook":
		return parseGitLabPush(d, body)
	case "Merge Request Hook":
		return parseGitLabMerge(d, body)
	}
	d.Ignored = unused(d.Event)
	var p struct {
		Project gitlabProject `json:"project"`
	}
	if err := decode(body, &p); err != nil || p.Project.FullName == "" {
		return err
	}
	var err error
	d.Repo, err = repo(p.Project.FullName, p.Project.CloneURL)
	return err
}

func parseGitLabPush(d *Delivery, body []byte) error {
	var p gitlabPush
	err := decode(body, &p)
	if err != nil {
		return err
	}
	if d.Repo, err = repo(p.Project.FullName, p.Project.CloneURL); err != nil {
		return err
	}
	message := ""
	for _, c := range p.Commits {
		if c.ID == p.After || c.ID == p.Commit {
			message = c.Message
		}
	}
	return d.add(p.Ref, p.Before, p.After, p.Commit, message, p.User)
}

// gitlabActions are GitLab's words for what concerns a build, but for "update".
var gitlabActions = map[string]string{"open": Opened, "reopen": Reopened, "close": Closed, "merge": Closed}

func parseGitLabMerge(d *Delivery, body []byte) error {
	var p gitlabMerge
	err := decode(body, &p)
	if err != nil {
		return err
	}
	if d.Repo, err = repo(p.Project.FullName, p.Project.CloneURL); err != nil {
		return err
	}
	mr := p.Attributes
	if mr == nil || mr.LastCommit == nil {
		return malformed("it has no object_attributes.last_commit")
	}
	action := gitlabActions[mr.Action]
	switch open := mr.State != "closed" && mr.State != "merged"; {
	case mr.Action == "update" && open && p.Changes.Base != nil:
		action = Retargeted
	case mr.Action == "update" && open && mr.OldRev != "":
		action = Synchronize
	}
	got := pull{
		action: action, did: mr.Action, number: mr.Number, base: mr.Base, commit: mr.LastCommit.ID,
		ref: fmt.Sprintf("refs/merge-requests/%d/head", mr.Number), author: p.User.Username, message: mr.LastCommit.Message,
		trusted: mr.SourceID != 0 && mr.SourceID == mr.TargetID && mr.SourceID == p.Project.ID,
	}
	if mr.Source != nil {
		got.source = mr.Source.FullName
	}
	return d.pull(got)
}
