package forge

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// generic is what anything may send that can sign by the scheme in standard.go. Unknown fields
// are refused: here it is people who write them.
//
//	{"event": "push", "repository": "example/shop", "ref": "refs/heads/main",
//	 "before": "…", "after": "…"}
//
// Event is "ping", "push" (branches and tags; after of only zeros is a deletion) or
// "pull_request", whose ref is where the repository itself holds the head.
type generic struct {
	Event      string `json:"event"`
	Repository string `json:"repository"` // "owner/name"
	CloneURL   string `json:"clone_url"`
	Ref        string `json:"ref"`
	Before     string `json:"before"` // empty: the ref is new
	After      string `json:"after"`
	Commit     string `json:"commit"` // of an annotated tag, what it stands on
	Message    string `json:"message"`
	Author     string `json:"author"`

	PullRequest *struct {
		Number int    `json:"number"`
		Action string `json:"action"` // opened, synchronize, reopened, retargeted, closed
		Base   string `json:"base"`
		Source string `json:"source"` // another repository than Repository is a fork; empty too
	} `json:"pull_request"`
}

var genericActions = map[string]string{
	Opened: Opened, Synchronize: Synchronize, Reopened: Reopened, Retargeted: Retargeted, Closed: Closed,
}

func parseGeneric(d *Delivery, _ http.Header, body []byte) error {
	var p generic
	in := json.NewDecoder(bytes.NewReader(body))
	in.DisallowUnknownFields()
	if err := in.Decode(&p); err != nil {
		return malformed("its JSON: %v", err)
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return malformed("something follows its JSON")
	}
	if err := plain("the event", p.Event, 64); err != nil {
		return err
	}
	d.Event = p.Event
	var err error
	if p.Repository != "" || p.Event != "ping" {
		if d.Repo, err = repo(p.Repository, p.CloneURL); err != nil {
			return err
		}
	}
	switch p.Event {
	case "ping":
		d.Ping = true
		return nil
	case "push":
		if p.Before == "" {
			p.Before = noObject
		}
		return d.add(p.Ref, p.Before, p.After, p.Commit, p.Message, p.Author)
	case "pull_request":
		pr := p.PullRequest
		if pr == nil || genericActions[pr.Action] == "" {
			return malformed("it has no pull_request.action that slipway knows")
		}
		return d.pull(pull{
			action: pr.Action, number: pr.Number, ref: p.Ref, base: pr.Base, commit: p.After, source: pr.Source,
			author: p.Author, message: p.Message, trusted: pr.Source == p.Repository,
		})
	default:
		return malformed("its event is %q; it is one of ping, push, pull_request", p.Event)
	}
}
