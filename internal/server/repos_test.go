package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"slipway/internal/ledger"
	"slipway/internal/server"
)

// A repository's policy and secret change while the server runs, for what is
// delivered from then on; an admin may, and it is written down.
func TestRepoIsChanged(t *testing.T) {
	w := newWorld(t)
	w.serve(t, server.Options{Public: "https://ci.example.com"}, func(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
		return ledger.End{State: ledger.Passed}, nil
	})
	const path = "/api/v1/repos/example%2Fweb"
	admin := w.token(t, ledger.Admin)
	fork := func(n int) ledger.State {
		body := fmt.Sprintf(`{"event":"pull_request","repository":"example/web","ref":"refs/pull/%d/head","after":%q,"pull_request":{"number":%d,"action":"opened","base":"main","source":"fork/web"}}`, n, hash(n), n)
		if code, said := w.deliver(t, http.DefaultClient, fmt.Sprint("fork", n), []byte(body)); code != http.StatusAccepted {
			t.Fatalf("%d %s", code, said)
		}
		return w.until(t, "there", func(r ledger.Run) bool { return r.Commit == hash(n) }).State
	}
	if got := fork(1); got != ledger.Held {
		t.Errorf("a fork is %s before", got)
	}
	code, said := w.ask(t, http.MethodPost, path, admin, `{"forks": "deny", "deny": ["tag"], "credential": "a-new-token"}`)
	if code != http.StatusOK || !strings.Contains(said, `"forks: deny, was hold"`) || strings.Contains(said, "a-new-token") || strings.Contains(said, "secret") {
		t.Errorf("%d %s", code, said)
	}
	if got := fork(2); got != ledger.Skipped {
		t.Errorf("a fork is %s after", got)
	}
	r, err := w.ledger.Repo(t.Context(), "hook")
	must(t, err)
	if string(r.Credential) != "a-new-token" || string(r.Secret) != string(w.secret) || r.Policy.Newest || len(r.Policy.Deny) != 1 {
		t.Errorf("%+v", r)
	}

	old := w.secret
	code, said = w.ask(t, http.MethodPost, path, admin, `{"new_secret": true}`)
	var got server.RepoChanged
	must(t, json.Unmarshal([]byte(said), &got))
	if code != http.StatusOK || got.Secret == "" || got.Secret == string(old) || got.Hook != "https://ci.example.com/hooks/hook" {
		t.Fatalf("%d %s", code, said)
	}
	if code, said := w.deliver(t, http.DefaultClient, "old", push(3)); code != http.StatusForbidden {
		t.Errorf("the old secret: %d %s", code, said)
	}
	w.secret = []byte(got.Secret)
	w.accepted(t, 3)

	sysadmin := w.token(t, ledger.Sysadmin)
	for _, c := range []struct {
		path, token, body string
		code              int
		says              string
	}{
		{path, sysadmin, `{"forks": "allow"}`, http.StatusForbidden, "takes a admin"},
		{path, admin, `{"forks": "sometimes"}`, http.StatusConflict, "use hold, allow or deny"},
		{path, admin, `{"forge": "cvs"}`, http.StatusConflict, "no forge is called"},
		{path, admin, `{"name": ""}`, http.StatusConflict, "a repository has one"},
		{path, admin, `{"url": "https://user:pass@git.example.com/x.git"}`, http.StatusConflict, ""},
		{path, admin, `{"url": "https://elsewhere.example.com/example/web.git"}`, http.StatusConflict, "is not shown to https://elsewhere.example.com"},
		{path, admin, `{"url": "http://git.example.com/example/web.git"}`, http.StatusConflict, "is not shown to http://git.example.com"},
		{path, admin, `{"secret": "mine"}`, http.StatusBadRequest, "unknown field"},
		{"/api/v1/repos/example%2Fnone", admin, `{"forks": "deny"}`, http.StatusNotFound, "slipway repos ls"},
		{"/api/v1/repos/uploads", admin, `{"forks": "deny"}`, http.StatusNotFound, "slipway repos ls"},
	} {
		if code, said := w.ask(t, http.MethodPost, c.path, c.token, c.body); code != c.code || !strings.Contains(said, c.says) || strings.Contains(said, "pass@") {
			t.Errorf("%s: %d %s", c.body, code, said)
		}
	}
	deeds, err := w.ledger.Deeds(t.Context(), 100)
	must(t, err)
	text := fmt.Sprintf("%+v", deeds)
	if !strings.Contains(text, "secret: a new one") || !strings.Contains(text, "forks: deny, was hold; deny: tag, was none; credential: another one") || strings.Contains(text, got.Secret) || strings.Contains(text, "a-new-token") || strings.Contains(text, "pass@") {
		t.Errorf("%s", text)
	}
}
