package forge

import (
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"
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
	if got.ID == "" || c.event != "" && got.Event != c.event {
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
		{
			name: "branch deleted alone", event: "delete", body: `{"ref":"old","ref_type":"branch","sender":{"login":"jane"},` + shop + `}`,
			changes: []Change{with(gone("refs/heads/old", pipeline.Push), func(c *Change) { c.Before = "" })}, ignored: "deleted",
		},
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

const project = `"project":{"id":7,"path_with_namespace":"example/shop","git_http_url":"https://git.example.com/example/shop.git"}`

func gitlabBody(ref, before, after, commit string) string {
	return `{"ref":"` + ref + `","before":"` + before + `","after":"` + after + `","checkout_sha":` + commit + `,"user_username":"jane",` + project +
		`,"commits":[{"id":"` + one + `","message":"no"},{"id":"` + two + `","message":"Sell apples"}]}`
}

func mergeBody(action, state, rest, source, changes string) string {
	return `{"user":{"username":"jane"},` + project + `,"object_attributes":{"iid":5,"action":"` + action + `","state":"` + state + `",` + rest + `
		"target_branch":"main","source_branch":"fruit","target_project_id":7,` + source + `,
		"last_commit":{"id":"` + two + `","message":"Sell apples"}},"changes":` + changes + `}`
}

func TestGitLab(t *testing.T) {
	const (
		push, tag, merge = "Push Hook", "Tag Push Hook", "Merge Request Hook"
		ref              = "refs/merge-requests/5/head"
		own              = `"source_project_id":7,"source":{"id":7,"path_with_namespace":"example/shop"}`
		fork             = `"source_project_id":8,"source":{"id":8,"path_with_namespace":"mallory/shop"}`
		lost             = `"source_project_id":8,"source":null`
		quoted           = `"` + two + `"`
	)
	merged := func(action string, trusted bool, source string) Change {
		return with(pullOf(ref, action, trusted, source), func(c *Change) { c.Message = "Sell apples" })
	}
	for _, c := range []asked{
		{name: "push", event: push, body: gitlabBody("refs/heads/main", one, two, quoted), changes: []Change{branch(one, two)}},
		{
			name: "annotated tag", event: tag, body: gitlabBody("refs/tags/v1", zero, one, quoted),
			changes: []Change{with(branch(zero, one), func(c *Change) {
				c.Event.Kind, c.Event.Ref, c.Event.Commit = pipeline.Tag, "refs/tags/v1", two
			})},
		},
		{
			name: "branch deleted", event: push, body: gitlabBody("refs/heads/old", one, zero, "null"),
			changes: []Change{gone("refs/heads/old", pipeline.Push)}, ignored: "deleted",
		},
		{
			name: "tag deleted", event: tag, body: gitlabBody("refs/tags/v1", one, zero, "null"),
			changes: []Change{gone("refs/tags/v1", pipeline.Tag)}, ignored: "deleted",
		},
		{name: "opened", event: merge, body: mergeBody("open", "opened", "", own, "{}"), changes: []Change{merged(Opened, true, "example/shop")}},
		{name: "reopened", event: merge, body: mergeBody("reopen", "opened", "", own, "{}"), changes: []Change{merged(Reopened, true, "example/shop")}},
		{
			name: "pushed to", event: merge, body: mergeBody("update", "opened", `"oldrev":"`+one+`",`, own, "{}"),
			changes: []Change{merged(Synchronize, true, "example/shop")},
		},
		{
			name: "retargeted", event: merge, body: mergeBody("update", "opened", "", own, `{"target_branch":{"previous":"old"}}`),
			changes: []Change{merged(Retargeted, true, "example/shop")},
		},
		{name: "edited", event: merge, body: mergeBody("update", "opened", "", own, `{"title":{}}`), ignored: "update"},
		{name: "approved", event: merge, body: mergeBody("approved", "opened", "", own, `{}`), ignored: "approved"},
		{name: "pushed to when merged", event: merge, body: mergeBody("update", "merged", `"oldrev":"`+one+`",`, own, "{}"), ignored: "update"},
		{name: "merged", event: merge, body: mergeBody("merge", "merged", "", own, "{}"), changes: []Change{merged(Closed, true, "example/shop")}, ignored: "closed"},
		{name: "from a fork", event: merge, body: mergeBody("open", "opened", "", fork, "{}"), changes: []Change{merged(Opened, false, "mallory/shop")}},
		{name: "from a fork that is gone", event: merge, body: mergeBody("open", "opened", "", lost, "{}"), changes: []Change{merged(Opened, false, "")}},
		{name: "of no use", event: "Note Hook", body: `{` + project + `}`, ignored: "Note Hook"},
		{name: "of the system", event: "System Hook", body: `{"event_name":"push"}`, ignored: "System Hook"},
		{name: "another event's body", event: push, body: mergeBody("open", "opened", "", own, "{}"), err: ErrMalformed},
		{name: "another event's body", event: merge, body: gitlabBody("refs/heads/main", one, two, quoted), err: ErrMalformed},
	} {
		c.kind = GitLab
		t.Run(c.name, c.check)
	}
}

func bitbucketBody(changes ...string) string {
	return `{"repository":{"full_name":"example/shop","uuid":"{7}"},"actor":{"nickname":"jane"},"push":{"changes":[` + strings.Join(changes, ",") + `]}}`
}

func bitbucketChange(kind, name, before, after string) string {
	end := func(id string) string {
		if id == "" {
			return "null"
		}
		return `{"type":"` + kind + `","name":"` + name + `","target":{"hash":"` + id + `","message":"Sell apples"}}`
	}
	return `{"old":` + end(before) + `,"new":` + end(after) + `}`
}

func bitbucketPullBody(state, hash, source string) string {
	return `{"repository":{"full_name":"example/shop","uuid":"{7}"},"pullrequest":{"id":5,"state":"` + state + `","author":{"nickname":"jane"},
		"source":{"branch":{"name":"fruit"},"commit":{"hash":"` + hash + `"},"repository":` + source + `},
		"destination":{"branch":{"name":"main"},"commit":{"hash":"111111111111"}}}}`
}

func TestBitbucket(t *testing.T) {
	const (
		short = "222222222222"
		own   = `{"full_name":"example/shop","uuid":"{7}"}`
		fork  = `{"full_name":"mallory/shop","uuid":"{8}"}`
	)
	merged := func(action string) Change {
		return with(pullOf("refs/heads/fruit", action, true, "example/shop"), func(c *Change) {
			c.After, c.CommitPrefix, c.Event.Commit = short, short, ""
		})
	}
	tag := with(branch(zero, two), func(c *Change) { c.Event.Kind, c.Event.Ref = pipeline.Tag, "refs/tags/v1" })
	for _, c := range []asked{
		{name: "push", event: "repo:push", body: bitbucketBody(bitbucketChange("branch", "main", one, two)), changes: []Change{branch(one, two)}},
		{
			name: "many refs", event: "repo:push", body: bitbucketBody(
				bitbucketChange("branch", "old", one, ""), bitbucketChange("tag", "v1", "", two),
				bitbucketChange("annotated_tag", "v1", "", two), bitbucketChange("bookmark", "x", "", two),
				bitbucketChange("branch", "main", "", two)),
			changes: []Change{gone("refs/heads/old", pipeline.Push), tag, tag, branch(zero, two)},
		},
		{
			name: "deleted", event: "repo:push", body: bitbucketBody(bitbucketChange("tag", "v1", one, "")),
			changes: []Change{gone("refs/tags/v1", pipeline.Tag)}, ignored: "deleted",
		},
		{name: "of nothing", event: "repo:push", body: bitbucketBody(), ignored: "no branch or tag"},
		{name: "neither old nor new", event: "repo:push", body: bitbucketBody(`{}`), err: ErrMalformed},
		{name: "too many refs", event: "repo:push", body: bitbucketBody(slices.Repeat([]string{bitbucketChange("branch", "main", one, two)}, maxChanges+1)...), err: ErrMalformed},
		{name: "opened", event: "pullrequest:created", body: bitbucketPullBody("OPEN", short, own), changes: []Change{merged(Opened)}},
		{name: "updated", event: "pullrequest:updated", body: bitbucketPullBody("OPEN", short, own), changes: []Change{merged(Synchronize)}},
		{name: "updated when closed", event: "pullrequest:updated", body: bitbucketPullBody("MERGED", short, own), ignored: "updated"},
		{
			name: "a whole commit id", event: "pullrequest:created", body: bitbucketPullBody("OPEN", two, own),
			changes: []Change{pullOf("refs/heads/fruit", Opened, true, "example/shop")},
		},
		{name: "too short a commit id", event: "pullrequest:created", body: bitbucketPullBody("OPEN", "2222222", own), err: ErrMalformed},
		{name: "merged", event: "pullrequest:fulfilled", body: bitbucketPullBody("MERGED", short, own), changes: []Change{merged(Closed)}, ignored: "closed"},
		{name: "declined", event: "pullrequest:rejected", body: bitbucketPullBody("DECLINED", short, own), changes: []Change{merged(Closed)}, ignored: "closed"},
		{name: "from a fork", event: "pullrequest:created", body: bitbucketPullBody("OPEN", short, fork), ignored: "fork"},
		{name: "from a fork that is gone", event: "pullrequest:created", body: bitbucketPullBody("OPEN", short, "null"), ignored: "fork"},
		{name: "of no use", event: "repo:fork", body: `{"repository":{"full_name":"example/shop"}}`, ignored: "repo:fork"},
	} {
		c.kind = Bitbucket
		t.Run(c.name, c.check)
	}
	d, err := read(t, Bitbucket, "repo:push", bitbucketBody())
	if want := (Repo{"example/shop", "https://bitbucket.org/example/shop.git"}); err != nil || d.Repo != want {
		t.Errorf("%+v, %v, want %+v", d.Repo, err, want)
	}
}

func TestBitbucketDC(t *testing.T) {
	const (
		ref  = "refs/pull-requests/5/from"
		repo = `{"id":7,"slug":"shop","project":{"key":"PRJ"},"links":{"clone":[{"name":"ssh","href":"ssh://x"},{"name":"http","href":"https://git.example.com/scm/prj/shop.git"}]}}`
		fork = `{"id":8,"slug":"shop","project":{"key":"~mallory"}}`
	)
	push := func(changes string) string {
		return `{"actor":{"name":"jane"},"repository":` + repo + `,"toCommit":{"id":"` + two + `","message":"Sell apples"},"changes":[` + changes + `]}`
	}
	change := func(ref, before, after string) string {
		return `{"refId":"` + ref + `","fromHash":"` + before + `","toHash":"` + after + `"}`
	}
	pull := func(from, rest string) string {
		return `{"pullRequest":{"id":5,"author":{"user":{"name":"jane"}},"fromRef":{"id":"refs/heads/fruit","latestCommit":"` + two + `","repository":` + from +
			`},"toRef":{"id":"refs/heads/main","latestCommit":"` + one + `","repository":` + repo + `}}` + rest + `}`
	}
	for _, c := range []asked{
		{name: "ping", event: "diagnostics:ping", body: `{"test":true}`, ping: true},
		{
			name: "push of two", event: "repo:refs_changed", body: push(change("refs/heads/main", one, two) + "," + change("refs/tags/v1", one, zero)),
			changes: []Change{branch(one, two), gone("refs/tags/v1", pipeline.Tag)},
		},
		{name: "opened", event: "pr:opened", body: pull(repo, ""), changes: []Change{pullOf(ref, Opened, true, "PRJ/shop")}},
		{name: "pushed to", event: "pr:from_ref_updated", body: pull(repo, ""), changes: []Change{pullOf(ref, Synchronize, true, "PRJ/shop")}},
		{name: "edited", event: "pr:modified", body: pull(repo, `,"previousTarget":{"id":"refs/heads/main"}`), ignored: "modified"},
		{name: "retargeted", event: "pr:modified", body: pull(repo, `,"previousTarget":{"id":"refs/heads/old"}`), changes: []Change{pullOf(ref, Retargeted, true, "PRJ/shop")}},
		{name: "merged", event: "pr:merged", body: pull(repo, ""), changes: []Change{pullOf(ref, Closed, true, "PRJ/shop")}, ignored: "closed"},
		{name: "from a fork", event: "pr:opened", body: pull(fork, ""), changes: []Change{pullOf(ref, Opened, false, "~mallory/shop")}},
		{name: "of no use", event: "pr:comment:added", body: pull(repo, ""), ignored: "pr:comment:added"},
		{name: "another event's body", event: "pr:opened", body: push(""), err: ErrMalformed},
	} {
		c.kind = BitbucketDC
		t.Run(c.name, c.check)
	}
	d, err := read(t, BitbucketDC, "repo:refs_changed", push(""))
	if want := (Repo{"PRJ/shop", "https://git.example.com/scm/prj/shop.git"}); err != nil || d.Repo != want {
		t.Errorf("%+v, %v, want %+v", d.Repo, err, want)
	}
}

func TestGeneric(t *testing.T) {
	push := func(before, after string) string {
		return `{"event":"push","repository":"example/shop","ref":"refs/heads/main","before":"` + before + `","after":"` + after + `","author":"jane","message":"Sell apples"}`
	}
	pull := func(action, source string) string {
		return `{"event":"pull_request","repository":"example/shop","ref":"refs/changes/5","after":"` + two + `","author":"jane","pull_request":{"number":5,"base":"main","action":"` + action + `","source":"` + source + `"}}`
	}
	for _, c := range []asked{
		{name: "ping", body: `{"event":"ping"}`, ping: true},
		{name: "push", body: push(one, two), changes: []Change{branch(one, two)}},
		{name: "new branch", body: push("", two), changes: []Change{branch(zero, two)}},
		{name: "deleted", body: push(one, zero), changes: []Change{gone("refs/heads/main", pipeline.Push)}, ignored: "deleted"},
		{name: "opened", body: pull("opened", "example/shop"), changes: []Change{pullOf("refs/changes/5", Opened, true, "example/shop")}},
		{name: "from a fork", body: pull("opened", "mallory/shop"), changes: []Change{pullOf("refs/changes/5", Opened, false, "mallory/shop")}},
		{name: "from nobody knows where", body: pull("opened", ""), changes: []Change{pullOf("refs/changes/5", Opened, false, "")}},
		{name: "unknown action", body: pull("poked", ""), err: ErrMalformed},
		{name: "unknown event", body: `{"event":"poke","repository":"example/shop"}`, err: ErrMalformed},
		{name: "no event", body: `{"repository":"example/shop"}`, err: ErrMalformed},
		{name: "no after", body: push(one, ""), err: ErrMalformed},
		{name: "unknown field", body: `{"event":"ping","evnt":1}`, err: ErrMalformed},
		{name: "more than one document", body: `{"event":"ping"} {}`, err: ErrMalformed},
	} {
		c.kind = Generic
		t.Run(c.name, c.check)
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
