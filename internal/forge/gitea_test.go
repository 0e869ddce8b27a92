package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/need"
	"slipway/pipeline"
)

// realGitea is a Gitea of its own for one test (.ci/gitea/serve).
type realGitea struct {
	url, dir string
	tokens   map[string]string
}

func startGitea(t *testing.T) *realGitea {
	t.Helper()
	need.Tool(t, "gitea")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	g := &realGitea{url: "http://127.0.0.1:" + port, dir: t.TempDir(), tokens: map[string]string{}}
	var out bytes.Buffer
	cmd := exec.Command("../../.ci/gitea/serve", g.dir, port)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended: //nolint:errcheck // stopped by this test
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			<-ended //nolint:errcheck // killed by this test
		}
		if t.Failed() {
			t.Logf("Gitea said:\n%s", out.String())
		}
	})
	for {
		if resp, err := http.Get(g.url + "/api/healthz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("Gitea ended: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	for _, user := range []string{"jane", "mallory"} {
		token, err := os.ReadFile(filepath.Join(g.dir, "token."+user))
		if err != nil {
			t.Fatal(err)
		}
		g.tokens[user] = strings.TrimSpace(string(token))
	}
	return g
}

// call asks the API as user, and reads the answer into got when that is not nil.
func (g *realGitea) call(t *testing.T, user, method, path string, body, got any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(method, g.url+"/api/v1"+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "token "+g.tokens[user])
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s: %s, %v", method, path, resp.Status, answer, err)
	}
	if got != nil {
		if err := json.Unmarshal(answer, got); err != nil {
			t.Fatal(err)
		}
	}
}

// git runs git in dir, as nobody who has a configuration.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Jane", "GIT_AUTHOR_EMAIL=jane@example.com", "GIT_COMMITTER_NAME=Jane", "GIT_COMMITTER_EMAIL=jane@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit makes a commit in the work tree dir and gives its id.
func commit(t *testing.T, dir, message string) string {
	t.Helper()
	git(t, dir, "commit", "--quiet", "--allow-empty", "-m", message)
	return git(t, dir, "rev-parse", "HEAD")
}

// replay presses "Redeliver" for a delivery, which only Gitea's pages offer.
func (g *realGitea) replay(t *testing.T, hook int, uuid string) {
	t.Helper()
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar}
	home, _ := url.Parse(g.url)
	csrf := func() string {
		for _, c := range jar.Cookies(home) {
			if c.Name == "_csrf" {
				return c.Value
			}
		}
		return ""
	}
	post := func(path string, form url.Values) {
		page, err := client.Get(g.url + "/user/login")
		if err != nil {
			t.Fatal(err)
		}
		page.Body.Close()
		form.Set("_csrf", csrf())
		resp, err := client.PostForm(g.url+path, form)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", path, resp.Status)
		}
	}
	post("/user/login", url.Values{"user_name": {"jane"}, "password": {"slipway-jane"}})
	post(fmt.Sprintf("/jane/shop/settings/hooks/%d/replay/%s", hook, uuid), url.Values{})
}

// inbox takes deliveries at one address and reads each with Read.
type inbox struct {
	*httptest.Server
	got chan received
}

type received struct {
	Delivery
	err error
}

func newInbox(t *testing.T) *inbox {
	t.Helper()
	in := &inbox{got: make(chan received, 100)}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
		if err == nil {
			var d Delivery
			if kind, ok := Detect(r.Header); !ok || kind != Gitea {
				t.Errorf("taken for %q", kind)
			}
			d, err = Read(Gitea, secret, r.Header, body)
			in.got <- received{d, err}
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(in.Close)
	return in
}

// want waits for the next delivery that is not ignored as one that a push repeats, and holds its
// only Change against change.
func (in *inbox) want(t *testing.T, what string, change Change) Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		select {
		case d := <-in.got:
			if d.err != nil {
				t.Fatalf("%s: %v", what, d.err)
			}
			if len(d.Changes) == 0 && (d.Event == "create" || d.Event == "delete") {
				continue
			}
			if len(d.Changes) != 1 || !reflect.DeepEqual(d.Changes[0], change) {
				t.Fatalf("%s: got %s\n%+v, want\n%+v", what, d.Event, d.Delivery, change)
			}
			if d.Repo.FullName != "jane/shop" || !strings.HasSuffix(d.Repo.CloneURL, "/jane/shop.git") || (d.Ignored == "") != change.Runs() {
				t.Errorf("%s: %+v", what, d.Delivery)
			}
			return d.Delivery
		case <-ctx.Done():
			t.Fatalf("%s: no delivery came", what)
		}
	}
}

// TestRealGitea: what a real Gitea signs and sends is read as it was meant, as JSON and as a form,
// and a status that is posted shows there.
func TestRealGitea(t *testing.T) {
	g := startGitea(t)
	for _, content := range []string{"json", "form"} {
		t.Run(content, func(t *testing.T) { g.tell(t, content) })
	}
}

func (g *realGitea) tell(t *testing.T, content string) {
	var hook struct {
		ID int `json:"id"`
	}
	in := newInbox(t)
	g.call(t, "jane", "POST", "/user/repos", map[string]any{"name": "shop"}, nil)
	g.call(t, "jane", "POST", "/repos/jane/shop/hooks", map[string]any{
		"type": "gitea", "active": true, "events": []string{"push", "create", "delete", "pull_request", "pull_request_sync"},
		"config": map[string]string{"url": in.URL, "content_type": content, "secret": string(secret)},
	}, &hook)
	defer g.call(t, "jane", "DELETE", "/repos/jane/shop", nil, nil)

	work := t.TempDir()
	git(t, work, "init", "--quiet", "-b", "main")
	remote := func(user string) string {
		return strings.Replace(g.url, "://", "://"+user+":"+g.tokens[user]+"@", 1) + "/" + user + "/shop.git"
	}
	push := func(user string, args ...string) {
		git(t, work, append([]string{"push", "--quiet", remote(user)}, args...)...)
	}
	change := func(kind pipeline.EventKind, ref, before, after, commit, message string) Change {
		return Change{
			Event:  pipeline.Event{Kind: kind, Ref: ref, Commit: commit, Trusted: true},
			Before: before, After: after, Deleted: after == noObject, Message: message, Author: "jane",
		}
	}

	first := commit(t, work, "Sell apples")
	push("jane", "main")
	in.want(t, "new branch", change(pipeline.Push, "refs/heads/main", noObject, first, first, "Sell apples\n"))
	second := commit(t, work, "Sell pears [skip ci]")
	push("jane", "main")
	moved := change(pipeline.Push, "refs/heads/main", first, second, second, "Sell pears [skip ci]\n")
	delivered := in.want(t, "push", moved)

	g.replay(t, hook.ID, delivered.ID)
	again := in.want(t, "redelivery", moved)
	t.Logf("ids of a delivery and of its repetition: %s and %s", delivered.ID, again.ID)

	git(t, work, "tag", "-a", "v1", "-m", "The first")
	object := git(t, work, "rev-parse", "v1")
	push("jane", "v1")
	in.want(t, "annotated tag", change(pipeline.Tag, "refs/tags/v1", noObject, object, second, "Sell pears [skip ci]\n"))
	push("jane", ":v1")
	in.want(t, "tag deleted", change(pipeline.Tag, "refs/tags/v1", object, noObject, "", ""))
	push("jane", "main:old")
	in.want(t, "another branch", change(pipeline.Push, "refs/heads/old", noObject, second, second, "Sell pears [skip ci]\n"))
	push("jane", ":old")
	in.want(t, "branch deleted", change(pipeline.Push, "refs/heads/old", "", noObject, "", ""))

	g.pull(t, in, work, push)
	g.status(t, second)

	g.call(t, "jane", "POST", fmt.Sprintf("/repos/jane/shop/hooks/%d/tests", hook.ID), nil, nil)
	for ping := false; !ping; {
		select {
		case d := <-in.got: // also that the pull request was closed with its fork
			if ping = d.Ping; d.err != nil {
				t.Fatal(d.err)
			}
		case <-time.After(time.Minute):
			t.Fatal("no test delivery came")
		}
	}
}

// pull opens a pull request from a fork, adds to it, and closes it.
func (g *realGitea) pull(t *testing.T, in *inbox, work string, push func(user string, args ...string)) {
	t.Helper()
	g.call(t, "mallory", "POST", "/repos/jane/shop/forks", map[string]any{}, nil)
	defer g.call(t, "jane", "DELETE", "/repos/mallory/shop", nil, nil)
	third := commit(t, work, "Sell the shop")
	push("mallory", "main:fruit")
	var made struct {
		Number int `json:"number"`
	}
	g.call(t, "mallory", "POST", "/repos/jane/shop/pulls", map[string]any{"title": "A bargain", "head": "mallory:fruit", "base": "main"}, &made)
	pull := func(action, commit string) Change {
		return Change{
			Event: pipeline.Event{
				Kind: pipeline.PullRequest, Ref: fmt.Sprintf("refs/pull/%d/head", made.Number), Base: "main", Commit: commit,
			},
			After: commit, Author: "mallory", PullRequest: made.Number, Action: action, Source: "mallory/shop",
		}
	}
	in.want(t, "pull request from a fork", pull(Opened, third))
	if head := git(t, work, "ls-remote", g.url+"/jane/shop.git", fmt.Sprintf("refs/pull/%d/head", made.Number)); !strings.HasPrefix(head, third) {
		t.Errorf("the ref of the pull request: %q, want %s", head, third)
	}
	fourth := commit(t, work, "Sell the town")
	push("mallory", "main:fruit")
	in.want(t, "commits added", pull(Synchronize, fourth))
	g.call(t, "jane", "PATCH", fmt.Sprintf("/repos/jane/shop/pulls/%d", made.Number), map[string]any{"state": "closed"}, nil)
	in.want(t, "closed", pull(Closed, fourth))
	g.call(t, "jane", "PATCH", fmt.Sprintf("/repos/jane/shop/pulls/%d", made.Number), map[string]any{"state": "open"}, nil)
	in.want(t, "reopened", pull(Reopened, fourth))
}

// status posts a status twice, then another, and reads what Gitea shows.
func (g *realGitea) status(t *testing.T, commit string) {
	t.Helper()
	api, err := Gitea.API(g.url + "/jane/shop.git")
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReporter(Gitea, api, g.tokens["jane"], nil)
	if err != nil {
		t.Fatal(err)
	}
	s := Status{Commit: commit, Context: "slipway/web", State: Pending, Description: "build", URL: "https://ci.example.com/runs/7"}
	for _, state := range []State{Pending, Pending, Success} {
		s.State = state
		if err := r.Post(t.Context(), "jane/shop", s); err != nil {
			t.Fatal(err)
		}
	}
	var shown struct {
		State    string `json:"state"`
		Statuses []struct {
			State       string `json:"status"`
			Context     string `json:"context"`
			Description string `json:"description"`
			URL         string `json:"target_url"`
		} `json:"statuses"`
	}
	g.call(t, "jane", "GET", "/repos/jane/shop/commits/"+commit+"/status", nil, &shown)
	if len(shown.Statuses) != 1 || shown.State != "success" || shown.Statuses[0].Context != s.Context ||
		shown.Statuses[0].Description != s.Description || shown.Statuses[0].URL != s.URL {
		t.Errorf("Gitea shows %+v", shown)
	}
	wrong, err := NewReporter(Gitea, api, strings.Repeat("0", 40), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := wrong.Post(t.Context(), "jane/shop", s); err == nil || !strings.Contains(err.Error(), "a token that may") {
		t.Errorf("another's token: %v", err)
	}
}
