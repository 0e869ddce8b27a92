package forge

import (
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"slipway/pipeline"
)

const (
	one  = "1111111111111111111111111111111111111111"
	two  = "2222222222222222222222222222222222222222"
	zero = "0000000000000000000000000000000000000000"

	shop = `"repository":{"id":7,"full_name":"example/shop","clone_url":"https://git.example.com/example/shop.git"}`
)

// asked is one delivery and the answer it must get.
type asked struct {
	name    string
	kind    Kind
	event   string
	body    string
	changes []Change
	ignored string // a part of the reason
	ping    bool
	err     error
}

func (c asked) check(t *testing.T) {
	t.Helper()
	got, err := read(t, c.kind, c.event, c.body)
	if !errors.Is(err, c.err) || (err != nil) != (c.err != nil) {
		t.Fatalf("error %v, want %v", err, c.err)
	}
	if err != nil {
		return
	}
	if got.Ping != c.ping || (got.Ignored == "") != (c.ignored == "") || !strings.Contains(got.Ignored, c.ignored) {
		t.Errorf("ping %v, ignored %q; want %v, %q", got.Ping, got.Ignored, c.ping, c.ignored)
	}
	if len(got.Changes)+len(c.changes) > 0 && !reflect.DeepEqual(got.Changes, c.changes) {
		t.Errorf("changes\n%+v, want\n%+v", got.Changes, c.changes)
	}
	if got.ID == "" || got.Event != c.event {
		t.Errorf("id %q, event %q", got.ID, got.Event)
	}
}

func branch(before, after string) Change {
	return Change{
		Event:  pipeline.Event{Kind: pipeline.Push, Ref: "refs/heads/main", Commit: after, Trusted: true},
		Before: before, After: after, Author: "jane", Message: "Sell apples",
	}
}

func with(c Change, f func(*Change)) Change {
	f(&c)
	return c
}

func gone(ref string, kind pipeline.EventKind) Change {
	return Change{
		Event:  pipeline.Event{Kind: kind, Ref: ref, Trusted: true},
		Before: one, After: zero, Deleted: true, Author: "jane",
	}
}

// pullOf is what pull request 5 becomes.
func pullOf(ref, action string, trusted bool, source string) Change {
	return Change{
		Event: pipeline.Event{Kind: pipeline.PullRequest, Ref: ref, Base: "main", Commit: two, Trusted: trusted},
		After: two, Author: "jane", PullRequest: 5, Action: action, Source: source,
	}
}

func pushLikeGitHub(ref, before, after, head string) string {
	return `{"ref":"` + ref + `","before":"` + before + `","after":"` + after + `","head_commit":` + head + `,` + shop +
		`,"pusher":{"name":"jane"},"sender":{"login":"jane"}}`
}

func pullBody(action, headRepo, changes string) string {
	return `{"action":"` + action + `","number":5,"changes":` + changes + `,"pull_request":{"user":{"login":"jane"},
		"head":{"ref":"fruit","sha":"` + two + `","repo":` + headRepo + `},
		"base":{"ref":"main","sha":"` + one + `","repo":{"id":7,"full_name":"example/shop"}}},` + shop + `}`
}

const (
	same       = `{"id":7,"full_name":"example/shop"}`
	fork       = `{"id":8,"full_name":"mallory/shop"}`
	headCommit = `{"id":"` + two + `","message":"Sell apples"}`
)

// TestLikeGitHub: what GitHub, Gitea and Forgejo send alike.
func TestLikeGitHub(t *testing.T) {
	const ref = "refs/pull/5/head"
	for _, kind := range []Kind{GitHub, Gitea, Forgejo} {
		sync := "synchronize"
		if kind != GitHub {
			sync = "synchronized"
		}
		for _, c := range []asked{
			{name: "push", event: "push", body: pushLikeGitHub("refs/heads/main", one, two, headCommit), changes: []Change{branch(one, two)}},
			{name: "new branch", event: "push", body: pushLikeGitHub("refs/heads/main", zero, two, headCommit), changes: []Change{branch(zero, two)}},
			{
				name: "tag", event: "push", body: pushLikeGitHub("refs/tags/v1", zero, two, headCommit),
				changes: []Change{with(branch(zero, two), func(c *Change) { c.Event.Kind, c.Event.Ref = pipeline.Tag, "refs/tags/v1" })},
			},
			{
				name: "annotated tag", event: "push", body: pushLikeGitHub("refs/tags/v1", zero, one, headCommit),
				changes: []Change{with(branch(zero, one), func(c *Change) {
					c.Event.Kind, c.Event.Ref, c.Event.Commit = pipeline.Tag, "refs/tags/v1", two
				})},
			},
			{
				name: "branch deleted", event: "push", body: pushLikeGitHub("refs/heads/old", one, zero, "null"),
				changes: []Change{gone("refs/heads/old", pipeline.Push)}, ignored: "refs/heads/old was deleted",
			},
			{
				name: "tag deleted", event: "push", body: pushLikeGitHub("refs/tags/v1", one, zero, "null"),
				changes: []Change{gone("refs/tags/v1", pipeline.Tag)}, ignored: "deleted",
			},
			{name: "notes", event: "push", body: pushLikeGitHub("refs/notes/commits", one, two, headCommit), ignored: "no branch or tag"},
			{name: "opened", event: "pull_request", body: pullBody("opened", same, "{}"), changes: []Change{pullOf(ref, Opened, true, "example/shop")}},
			{name: "pushed to", event: "pull_request", body: pullBody(sync, same, "{}"), changes: []Change{pullOf(ref, Synchronize, true, "example/shop")}},
			{name: "reopened", event: "pull_request", body: pullBody("reopened", same, "{}"), changes: []Change{pullOf(ref, Reopened, true, "example/shop")}},
			{
				name: "closed", event: "pull_request", body: pullBody("closed", same, "{}"), ignored: "closed",
				changes: []Change{pullOf(ref, Closed, true, "example/shop")},
			},
			{name: "from a fork", event: "pull_request", body: pullBody("opened", fork, "{}"), changes: []Change{pullOf(ref, Opened, false, "mallory/shop")}},
			{name: "from a fork that is gone", event: "pull_request", body: pullBody("opened", "null", "{}"), changes: []Change{pullOf(ref, Opened, false, "")}},
			{
				name: "a fork with our name", event: "pull_request", body: pullBody("opened", `{"id":8,"full_name":"example/shop"}`, "{}"),
				changes: []Change{pullOf(ref, Opened, false, "example/shop")},
			},
			{name: "labeled", event: "pull_request", body: pullBody("labeled", same, "{}"), ignored: "labeled"},
			{name: "edited", event: "pull_request", body: pullBody("edited", same, `{"title":{"from":"x"}}`), ignored: "edited"},
			{name: "of no use", event: "issues", body: `{` + shop + `}`, ignored: `"issues"`},
			{name: "of no repository", event: "organization", body: `{}`, ignored: `"organization"`},
			{name: "not JSON", event: "push", body: `{`, err: ErrMalformed},
			{name: "another event's body", event: "push", body: pullBody("opened", same, "{}"), err: ErrMalformed},
			{name: "another event's body", event: "pull_request", body: pushLikeGitHub("refs/heads/main", one, two, headCommit), err: ErrMalformed},
			{name: "no repository", event: "push", body: `{"ref":"refs/heads/main","before":"` + one + `","after":"` + two + `"}`, err: ErrMalformed},
			{name: "a ref like an option", event: "push", body: pushLikeGitHub("refs/heads/-x", one, two, headCommit), err: ErrMalformed},
			{name: "a short commit", event: "push", body: pushLikeGitHub("refs/heads/main", one, "2222222", headCommit), err: ErrMalformed},
			{name: "a wrong type", event: "push", body: `{"ref":7,` + shop + `}`, err: ErrMalformed},
			{name: "deep", event: "issues", body: strings.Repeat(`{"a":`, 65) + `1` + strings.Repeat(`}`, 65), err: ErrMalformed},
			{name: "long name", event: "issues", body: `{"repository":{"full_name":"` + strings.Repeat("a", 2000) + `"}}`, err: ErrMalformed},
		} {
			c.kind = kind
			t.Run(string(kind)+"/"+c.name, c.check)
		}
	}
}

// TestGitHub: what GitHub alone sends.
func TestGitHub(t *testing.T) {
	for _, c := range []asked{
		{name: "ping", event: "ping", body: `{"zen":"Keep it small",` + shop + `}`, ping: true},
		{name: "ping of an organization", event: "ping", body: `{"zen":"Keep it small"}`, ping: true},
		{
			name: "retargeted", event: "pull_request", body: pullBody("edited", same, `{"base":{"ref":{"from":"old"}}}`),
			changes: []Change{pullOf("refs/pull/5/head", Retargeted, true, "example/shop")},
		},
	} {
		c.kind = GitHub
		t.Run(c.name, c.check)
	}
}

// TestGitea: what Gitea and Forgejo alone send.
func TestGitea(t *testing.T) {
	for _, c := range []asked{
		{name: "create", event: "create", body: `{"sha":"` + two + `","ref":"v1","ref_type":"tag",` + shop + `}`, ignored: "a push says the same"},
		{name: "delete", event: "delete", body: `{"ref":"v1","ref_type":"tag",` + shop + `}`, ignored: "a push says the same"},
		{name: "test delivery", event: "push", body: pushLikeGitHub("refs/heads/main", two, two, headCommit), ping: true},
		{name: "a secret in the body", event: "push", body: strings.Replace(pushLikeGitHub("refs/heads/main", one, two, headCommit), "{", `{"secret":"x",`, 1), changes: []Change{branch(one, two)}},
		{
			name: "retargeted", event: "pull_request", body: pullBody("edited", same, `{"ref":{"from":"old"}}`),
			changes: []Change{pullOf("refs/pull/5/head", Retargeted, true, "example/shop")},
		},
	} {
		for _, c.kind = range []Kind{Gitea, Forgejo} {
			t.Run(string(c.kind)+"/"+c.name, c.check)
		}
	}
}

// TestForms: a form is signed whole by GitHub, and by its document alone by Gitea.
func TestForms(t *testing.T) {
	document := pushLikeGitHub("refs/heads/main", one, two, headCommit)
	form := []byte(url.Values{"payload": {document}}.Encode())
	for _, c := range []struct {
		kind   Kind
		signed []byte
	}{{GitHub, form}, {Gitea, []byte(document)}, {Forgejo, []byte(document)}} {
		h := signed(t, c.kind, "push", c.signed)
		h.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		got, err := readAt(now, c.kind, secret, h, form)
		if err != nil || !reflect.DeepEqual(got.Changes, []Change{branch(one, two)}) {
			t.Errorf("%s: %+v, %v", c.kind, got, err)
		}
		two := append(form[:len(form):len(form)], "&payload=%7B%7D"...)
		if _, err := readAt(now, c.kind, secret, h, two); !errors.Is(err, ErrSignature) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: a second payload: %v", c.kind, err)
		}
	}
}

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		headers string
		want    Kind
	}{
		{"X-GitHub-Event", GitHub},
		{"X-Gitlab-Event", GitLab},
		{"X-Event-Key X-Request-UUID", Bitbucket},
		{"X-Event-Key X-Request-Id", BitbucketDC},
		{"X-GitHub-Event X-Gogs-Event X-Gitea-Event", Gitea},
		{"X-GitHub-Event X-Gogs-Event X-Gitea-Event X-Forgejo-Event", Forgejo},
		{"X-GitHub-Event X-Gogs-Event", ""},
		{"Webhook-Id Webhook-Timestamp Webhook-Signature", Generic},
		{"Webhook-Id Webhook-Signature X-Gitlab-Event", GitLab},
		{"User-Agent", ""},
	} {
		h := http.Header{}
		for _, name := range strings.Fields(c.headers) {
			h.Set(name, "x")
		}
		if got, ok := Detect(h); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, %v", c.headers, got, ok)
		}
	}
}
