package forge

import (
	"encoding/hex"
	"errors"
	"net/http"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"slipway/pipeline"
)

// fuzz reads whatever the fuzzer makes, signed as kind does, and holds what comes out against
// what everybody further on relies upon.
func fuzz(f *testing.F, kind Kind) {
	f.Fuzz(func(t *testing.T, event string, body []byte) {
		h := signed(t, kind, event, body)
		d, err := readAt(now, kind, secret, h, body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v is no fault of the sender's", err)
			}
			return
		}
		if again, err := readAt(now, kind, secret, h, body); err != nil || !reflect.DeepEqual(d, again) {
			t.Fatalf("read twice: %+v and %+v, %v", d, again, err)
		}
		holds(t, d)
	})
}

// holds checks what is promised of every Delivery.
func holds(t *testing.T, d Delivery) {
	t.Helper()
	if d.ID == "" || len(d.ID) > 200 || strings.ContainsFunc(d.ID+d.Event, func(r rune) bool { return r < ' ' || r > '~' && r < 0xa0 }) {
		t.Errorf("id %q, event %q", d.ID, d.Event)
	}
	runs := false
	for _, c := range d.Changes {
		runs = runs || c.Runs()
		check(t, c)
	}
	if d.Ping && runs || !d.Ping && !runs && d.Ignored == "" {
		t.Errorf("ping %v, runs %v, ignored %q", d.Ping, runs, d.Ignored)
	}
	if len(d.Changes) > 0 && d.Repo.FullName == "" {
		t.Error("a change in no repository")
	}
}

func check(t *testing.T, c Change) {
	t.Helper()
	e := c.Event
	if e.Repo != "" || e.Changed != nil || e.Dirty {
		t.Errorf("the payload decides what is the caller's: %+v", e)
	}
	if checkRef(e.Ref) != nil || e.Base != "" && checkRef("refs/heads/"+e.Base) != nil {
		t.Errorf("ref %q, base %q", e.Ref, e.Base)
	}
	if len(c.Message) > maxMessage || !utf8.ValidString(c.Message) || len(c.Author) > 256 {
		t.Errorf("message of %d bytes, author of %d", len(c.Message), len(c.Author))
	}
	switch {
	case c.Deleted:
		if e.Commit != "" || !isZero(c.After) || c.Before != "" && isZero(c.Before) {
			t.Errorf("deleted: %+v", c)
		}
	case c.CommitPrefix != "":
		if e.Commit != "" || len(c.CommitPrefix) < 12 || !isHex(c.CommitPrefix) {
			t.Errorf("a commit cut short: %+v", c)
		}
	default:
		if checkCommit("", e.Commit) != nil || isZero(e.Commit) {
			t.Errorf("commit %q", e.Commit)
		}
	}
	if pull := e.Kind == pipeline.PullRequest; pull != (c.PullRequest > 0) || pull != (c.Action != "") || pull != (e.Base != "") {
		t.Errorf("half a pull request: %+v", c)
	}
	if e.Kind == pipeline.PullRequest && e.Trusted && c.Source == "" {
		t.Errorf("trusted, from nowhere: %+v", c)
	}
}

func FuzzGitHub(f *testing.F) {
	f.Add("ping", []byte(`{"zen":"Keep it small",`+shop+`}`))
	f.Add("push", []byte(pushLikeGitHub("refs/heads/main", one, two, headCommit)))
	f.Add("push", []byte(pushLikeGitHub("refs/tags/v1", one, zero, "null")))
	f.Add("pull_request", []byte(pullBody("opened", fork, "{}")))
	f.Add("pull_request", []byte(pullBody("edited", same, `{"base":{"ref":{}}}`)))
	fuzz(f, GitHub)
}

func FuzzGitea(f *testing.F) {
	f.Add("push", []byte(pushLikeGitHub("refs/heads/main", two, two, headCommit)))
	f.Add("create", []byte(`{`+shop+`}`))
	f.Add("pull_request", []byte(pullBody("synchronized", same, "{}")))
	fuzz(f, Gitea)
}

func FuzzGitLab(f *testing.F) {
	f.Add("Push Hook", []byte(gitlabBody("refs/heads/main", one, two, `"`+two+`"`)))
	f.Add("Tag Push Hook", []byte(gitlabBody("refs/tags/v1", one, zero, "null")))
	f.Add("Merge Request Hook", []byte(mergeBody("open", "opened", "", `"source_project_id":7,"source":{"path_with_namespace":"example/shop"}`, "{}")))
	fuzz(f, GitLab)
}

func FuzzBitbucket(f *testing.F) {
	f.Add("repo:push", []byte(bitbucketBody(bitbucketChange("branch", "main", one, two), bitbucketChange("tag", "v1", one, ""))))
	f.Add("pullrequest:created", []byte(bitbucketPullBody("OPEN", "222222222222", `{"full_name":"example/shop","uuid":"{7}"}`)))
	fuzz(f, Bitbucket)
}

func FuzzBitbucketDC(f *testing.F) {
	const repo = `{"id":7,"slug":"shop","project":{"key":"PRJ"}}`
	f.Add("diagnostics:ping", []byte(`{"test":true}`))
	f.Add("repo:refs_changed", []byte(`{"repository":`+repo+`,"changes":[{"refId":"refs/heads/main","fromHash":"`+one+`","toHash":"`+two+`"}]}`))
	f.Add("pr:opened", []byte(`{"pullRequest":{"id":5,"fromRef":{"latestCommit":"`+two+`","repository":`+repo+`},"toRef":{"id":"refs/heads/main","repository":`+repo+`}}}`))
	fuzz(f, BitbucketDC)
}

func FuzzGeneric(f *testing.F) {
	f.Add("", []byte(`{"event":"ping"}`))
	f.Add("", []byte(`{"event":"push","repository":"example/shop","ref":"refs/heads/main","after":"`+two+`"}`))
	f.Add("", []byte(`{"event":"pull_request","repository":"example/shop","ref":"refs/changes/5","after":"`+two+`","pull_request":{"number":5,"base":"main","action":"opened","source":"example/shop"}}`))
	fuzz(f, Generic)
}

// FuzzSignature gives every forge headers that were not made with the secret.
func FuzzSignature(f *testing.F) {
	other := sum256([]byte("another"), []byte(`{}`))
	f.Add("sha256="+hex.EncodeToString(other), "", "", []byte(`{}`))
	f.Add(hex.EncodeToString(other), "", "", []byte(`{}`))
	f.Add("v1,"+hex.EncodeToString(other), "one", "1760000000", []byte(`{}`))
	f.Fuzz(func(t *testing.T, signature, id, timestamp string, body []byte) {
		if signature == string(secret) {
			return
		}
		for kind := range readers {
			h := http.Header{headerID: {id}, headerTimestamp: {timestamp}, "Content-Type": {"application/x-www-form-urlencoded"}}
			for _, name := range signatures[kind] {
				if len(h.Values(name)) == 0 {
					h.Set(name, signature)
				}
			}
			if kind == GitLab && len(body)%2 == 0 { // else by its token
				h.Del(headerSignature)
				h.Set("X-Gitlab-Token", signature)
			}
			d, err := readAt(now, kind, secret, h, body)
			if !errors.Is(err, ErrSignature) && !errors.Is(err, ErrUnsigned) && !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %+v, %v", kind, d, err)
			}
		}
	})
}

// FuzzRef: what passes here, git passes too.
func FuzzRef(f *testing.F) {
	f.Add("refs/heads/main")
	f.Add("refs/heads/a.lock/@{b")
	f.Fuzz(func(t *testing.T, ref string) {
		if checkRef(ref) != nil || strings.Contains(ref, "\x00") {
			return
		}
		if err := exec.Command("git", "check-ref-format", ref).Run(); err != nil {
			t.Errorf("%q: git: %v", ref, err)
		}
	})
}
