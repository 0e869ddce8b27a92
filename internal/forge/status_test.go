package forge

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// api is a forge's API as far as statuses go: it keeps what came and answers as told.
type api struct {
	*httptest.Server
	code   int
	header http.Header
	answer string

	path, auth string
	body       map[string]string
	calls      int
}

func newAPI(t *testing.T) *api {
	t.Helper()
	a := &api{code: http.StatusCreated}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.calls++
		a.path, a.auth, a.body = r.URL.EscapedPath(), r.Header.Get("Authorization"), nil
		text, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(text, &a.body); err != nil || r.Method != http.MethodPost {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		for name, values := range a.header {
			w.Header()[name] = values
		}
		w.WriteHeader(a.code)
		_, _ = io.WriteString(w, a.answer)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *api) reporter(t *testing.T, kind Kind, token string) *Reporter {
	t.Helper()
	r, err := NewReporter(kind, a.URL+"/base/", token, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var red = Status{Commit: two, Context: "slipway/web", State: Failure, Description: "unit failed", URL: "https://ci.example.com/runs/7"}

// TestStatus: what goes to each forge, by its own documentation.
func TestStatus(t *testing.T) {
	likeGitHub := map[string]string{"state": "failure", "context": "slipway/web", "description": "unit failed", "target_url": red.URL}
	likeBitbucket := map[string]string{"state": "FAILED", "key": "slipway/web", "name": "slipway/web", "description": "unit failed", "url": red.URL}
	for _, c := range []struct {
		kind        Kind
		repo, token string
		path, auth  string
		body        map[string]string
	}{
		{GitHub, "example/shop", "t", "/base/repos/example/shop/statuses/" + two, "Bearer t", likeGitHub},
		{Gitea, "example/shop", "t", "/base/repos/example/shop/statuses/" + two, "token t", likeGitHub},
		{Forgejo, "example/shop", "t", "/base/repos/example/shop/statuses/" + two, "token t", likeGitHub},
		{
			GitLab, "example/team/shop", "t", "/base/projects/example%2Fteam%2Fshop/statuses/" + two, "Bearer t",
			map[string]string{"state": "failed", "name": "slipway/web", "description": "unit failed", "target_url": red.URL},
		},
		{Bitbucket, "example/shop", "t", "/base/repositories/example/shop/commit/" + two + "/statuses/build", "Bearer t", likeBitbucket},
		{Bitbucket, "example/shop", "jane:t", "/base/repositories/example/shop/commit/" + two + "/statuses/build", "Basic amFuZTp0", likeBitbucket},
		{BitbucketDC, "~jane/shop", "t", "/base/projects/~jane/repos/shop/commits/" + two + "/builds", "Bearer t", likeBitbucket},
	} {
		a := newAPI(t)
		if err := a.reporter(t, c.kind, c.token).Post(t.Context(), c.repo, red); err != nil {
			t.Errorf("%s: %v", c.kind, err)
		}
		if a.path != c.path || a.auth != c.auth || !reflect.DeepEqual(a.body, c.body) {
			t.Errorf("%s: %s, %s, %v", c.kind, a.path, a.auth, a.body)
		}
	}
}

// TestStatusLimits: no forge is given more than it takes.
func TestStatusLimits(t *testing.T) {
	long := red
	long.Description = strings.Repeat("ä\n", 500)
	long.Context = "slipway/" + strings.Repeat("x", 100)
	for kind, limit := range map[Kind]int{GitHub: 140, Gitea: 255, Forgejo: 255, GitLab: 255, Bitbucket: 255, BitbucketDC: 255} {
		a := newAPI(t)
		if err := a.reporter(t, kind, "t").Post(t.Context(), "example/shop", long); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		got := a.body["description"]
		if utf8.RuneCountInString(got) != limit || strings.Contains(got, "\n") || !strings.HasSuffix(got, "…") {
			t.Errorf("%s: a description of %d characters: %s", kind, utf8.RuneCountInString(got), got)
		}
		if kind == Bitbucket && len(a.body["key"]) > 40 {
			t.Errorf("a key of %d", len(a.body["key"]))
		}
	}
	a := newAPI(t)
	long.URL = "https://ci.example.com/" + strings.Repeat("x", 255)
	if err := a.reporter(t, GitLab, "t").Post(t.Context(), "example/shop", long); err != nil || a.body["target_url"] != "" {
		t.Errorf("GitLab with a long link: %v, %v", a.body, err)
	}
}

// TestStatusErrors: what is worth trying again, and what is not.
func TestStatusErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		code   int
		header http.Header
		again  bool
		after  time.Duration
		next   string
	}{
		{"server error", 500, nil, true, 0, "worth trying again"},
		{"away", 503, http.Header{"Retry-After": {"7"}}, true, 7 * time.Second, "worth"},
		{"too many", 429, http.Header{"Retry-After": {"99999999999"}}, true, 24 * time.Hour, "worth"},
		{"wrong token", 401, nil, false, 0, "a token that may"},
		{"forbidden", 403, http.Header{"X-Ratelimit-Remaining": {"12"}}, false, 0, "a token that may"},
		{"not so fast", 403, http.Header{"Retry-After": {"60"}}, true, time.Minute, "worth"},
		{"limit", 403, http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"1"}}, true, 0, "worth"},
		{"no such repository", 404, nil, false, 0, "check the repository"},
		{"no such thing", 422, nil, false, 0, "will not help"},
	} {
		a := newAPI(t)
		a.code, a.header, a.answer = c.code, c.header, `{"message":"so it is"}`
		err := a.reporter(t, GitHub, "secret-token").Post(t.Context(), "example/shop", red)
		var got *PostError
		if !errors.As(err, &got) || got.Code != c.code || got.Again != c.again || got.After != c.after ||
			!strings.Contains(err.Error(), c.next) || !strings.Contains(err.Error(), "so it is") {
			t.Errorf("%s: %v, %+v", c.name, err, got)
		}
		if strings.Contains(err.Error(), "secret-token") {
			t.Errorf("%s tells the token: %v", c.name, err)
		}
	}
}

// TestStatusNetwork: nobody there, or no time.
func TestStatusNetwork(t *testing.T) {
	a := newAPI(t)
	r := a.reporter(t, Gitea, "t")
	a.Close()
	var got *PostError
	if err := r.Post(t.Context(), "example/shop", red); !errors.As(err, &got) || !got.Again {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Post(ctx, "example/shop", red); !errors.As(err, &got) || got.Again || !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestStatusRedirect: the token goes nowhere else.
func TestStatusRedirect(t *testing.T) {
	other := newAPI(t)
	a := newAPI(t)
	a.code, a.header = http.StatusTemporaryRedirect, http.Header{"Location": {other.URL}}
	err := a.reporter(t, GitHub, "t").Post(t.Context(), "example/shop", red)
	if err == nil || !strings.Contains(err.Error(), "moved") || other.calls != 0 {
		t.Errorf("%v, and the other was called %d times", err, other.calls)
	}
}

// TestGitLabRepeat: a status that the commit has already is no error; another transition is.
func TestGitLabRepeat(t *testing.T) {
	for _, c := range []struct {
		state  State
		answer string
		ok     bool
	}{
		{Pending, `{"message":"Cannot transition status via :enqueue from :pending (Reason(s): Status cannot transition via \"enqueue\")"}`, true},
		{Failure, `{"message":"Cannot transition status via :drop from :failed (Reason(s): x)"}`, true},
		{Success, `{"message":"Cannot transition status via :success from :success"}`, true},
		{Pending, `{"message":"Cannot transition status via :enqueue from :success (Reason(s): x)"}`, false},
		{Pending, `{"message":{"target_url":["is blocked"]}}`, false},
		{Pending, `no JSON`, false},
	} {
		a := newAPI(t)
		a.code, a.answer = http.StatusBadRequest, c.answer
		s := red
		s.State = c.state
		if err := a.reporter(t, GitLab, "t").Post(t.Context(), "example/shop", s); (err == nil) != c.ok {
			t.Errorf("%s: %s: %v", c.state, c.answer, err)
		}
		if err := a.reporter(t, GitHub, "t").Post(t.Context(), "example/shop", s); err == nil {
			t.Errorf("GitHub: %s: no error", c.answer)
		}
	}
}

// TestStatusRefused: what is never sent.
func TestStatusRefused(t *testing.T) {
	a := newAPI(t)
	for _, c := range []struct {
		name string
		kind Kind
		repo string
		f    func(*Status)
	}{
		{"short commit", GitHub, "example/shop", func(s *Status) { s.Commit = "2222222" }},
		{"no context", GitHub, "example/shop", func(s *Status) { s.Context = "" }},
		{"no state", GitHub, "example/shop", func(s *Status) { s.State = "" }},
		{"a link that runs", GitHub, "example/shop", func(s *Status) { s.URL = "javascript:alert(1)" }},
		{"no link", Bitbucket, "example/shop", func(s *Status) { s.URL = "" }},
		{"a way out", GitHub, "../shop", func(*Status) {}},
		{"a way down", GitHub, "example/shop/hooks", func(*Status) {}},
		{"no owner", GitLab, "shop", func(*Status) {}},
	} {
		s := red
		c.f(&s)
		if err := a.reporter(t, c.kind, "t").Post(t.Context(), c.repo, s); err == nil || a.calls != 0 {
			t.Errorf("%s: %v, %d calls", c.name, err, a.calls)
		}
	}
	for _, address := range []string{"", "api.example.com", "file:///etc/passwd", "https://user:pass@api.example.com", "https://api.example.com/?x=1"} {
		if _, err := NewReporter(GitHub, address, "t", nil); err == nil {
			t.Errorf("%q is taken for an API", address)
		}
	}
	if _, err := NewReporter(GitHub, a.URL, "", nil); err == nil {
		t.Error("no token is needed")
	}
}

func TestAPI(t *testing.T) {
	for _, c := range []struct {
		kind        Kind
		clone, want string
	}{
		{GitHub, "https://github.com/example/shop.git", "https://api.github.com"},
		{GitHub, "https://git.example.com/example/shop.git", "https://git.example.com/api/v3"},
		{GitLab, "https://gitlab.com/example/shop.git", "https://gitlab.com/api/v4"},
		{Bitbucket, "https://bitbucket.org/example/shop.git", "https://api.bitbucket.org/2.0"},
		{BitbucketDC, "https://git.example.com/bitbucket/scm/prj/shop.git", "https://git.example.com/bitbucket/rest/api/latest"},
		{Gitea, "http://127.0.0.1:3000/example/shop.git", "http://127.0.0.1:3000/api/v1"},
		{Gitea, "git@git.example.com:example/shop.git", ""},
		{Generic, "https://git.example.com/example/shop.git", ""},
	} {
		if got, err := c.kind.API(c.clone); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s %s: %q, %v", c.kind, c.clone, got, err)
		}
	}
}

// TestOutgoing: what slipway sends, Generic's proof holds of.
func TestOutgoing(t *testing.T) {
	var h http.Header
	var body []byte
	code := http.StatusNoContent
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h = r.Header
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(code)
	}))
	defer server.Close()
	out := Outgoing{URL: server.URL + "/hook?secret=hidden", Secret: secret}
	if err := out.Send(t.Context(), "run-7", now, []byte(`{"event":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	if d, err := readAt(now, Generic, secret, h, body); err != nil || d.ID != "run-7" || !d.Ping {
		t.Errorf("%+v, %v", d, err)
	}
	code = http.StatusBadGateway
	var got *PostError
	err := out.Send(t.Context(), "run-7", now, []byte(`{}`))
	if !errors.As(err, &got) || !got.Again || strings.Contains(err.Error(), "hidden") {
		t.Errorf("%v", err)
	}
	code = http.StatusOK
	r, err := NewReporter(Generic, server.URL, string(secret), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Post(t.Context(), "example/shop", red); err != nil {
		t.Fatal(err)
	}
	if _, err := verifyStandard(time.Now(), secret, h, body); err != nil || !strings.Contains(string(body), `"repository":"example/shop"`) {
		t.Errorf("%s: %v", body, err)
	}
	for _, bad := range []Outgoing{{URL: server.URL}, {URL: "ftp://127.0.0.1", Secret: secret}, {URL: server.URL, Secret: []byte("whsec_!")}} {
		if err := bad.Send(t.Context(), "x", now, nil); err == nil {
			t.Errorf("%+v sends", bad)
		}
	}
}
