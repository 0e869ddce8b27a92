package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/internal/need"
	"slipway/internal/store"
)

// served is a place whose root is served by a real process, with one repository.
type served struct {
	place
	address, hook string
	bare          string    // the repository that it fetches from
	origin        string    // its URL
	forge         *gitForge // nil: it is fetched as a directory, and no statuses are sent
	secret        []byte
	token         string // of the highest role, once one was needed
	cmd           *exec.Cmd
	log           string
	n             int
}

const zeros = "0000000000000000000000000000000000000000"

func newServed(t *testing.T) *served {
	t.Helper()
	return servedOptions{}.serve(t)
}

// servedOptions are what differs between servers; the zero value is on a directory,
// with the ledger in the root.
type servedOptions struct {
	database string // of the ledger
	forge    bool   // fetch from a forge over HTTP
	disk     int64  // bytes of the file system that the root is
	registry string // where the environment's images go; empty: the root's own
	deliver  string // lines of the environment's file; with them the image runs on until it is stopped
}

func (o servedOptions) serve(t *testing.T) *served {
	t.Helper()
	v := &served{place: newPlaceOn(t, o.disk)}
	if o.database != "" {
		v.env = append(v.env, "SLIPWAY_DATABASE="+o.database)
	}
	v.log = filepath.Join(filepath.Dir(v.root), "server.log")
	var err error
	if v.address, err = freeAddress(); err != nil {
		t.Fatal(err)
	}
	v.env = append(v.env, "SLIPWAY_ADDRESS="+v.address, "SLIPWAY_PUBLIC_URL=http://"+v.address, "SLIPWAY_GIT_LOCAL=true")
	top := filepath.Dir(v.root)
	v.bare = filepath.Join(top, "example", "web.git")
	v.origin = "file://" + v.bare
	register := []string{"repos", "add", "--name", "example/web", "--json", "--forge", "generic"}
	if o.forge {
		v.forge = newGitForge(t, top)
		v.origin = "http://" + v.forge.address + "/example/web.git"
		v.env = append(v.env, "SLIPWAY_GIT_PLAIN_HTTP=true")
		token := filepath.Join(top, "token")
		if err := os.WriteFile(token, []byte("a-token"), 0o600); err != nil {
			t.Fatal(err)
		}
		register = append(register[:6], "gitea", "--repo-token", token)
	}
	v.git(t, "init", "-q", "-b", "main")
	v.git(t, "init", "-q", "-b", "main", "--bare", v.bare)
	v.git(t, "remote", "add", "origin", v.origin)
	v.git(t, "remote", "set-url", "--push", "origin", v.bare)
	v.write(t, ".ci.yml", "version: 1\nimages: {web: {build: ., tests: {unit: {command: \"cat /a.txt\"}}}}\nenvironments: [environments/test.yml]\n")
	dockerfile := "FROM example.com/base:1\nCOPY a.txt /a.txt\n"
	if o.deliver != "" {
		dockerfile += "CMD [\"sleep\", \"100000\"]\n"
	}
	v.write(t, "Dockerfile", dockerfile)
	image := "web: {}"
	if o.registry != "" {
		image = "web: {repository: " + o.registry + "/example/web}"
		v.env = append(v.env, "SLIPWAY_INSECURE=true")
	}
	v.write(t, "environments/test.yml", "version: 1\nname: test\nimages: {"+image+"}\ngates: {branch: main, signers: [slipway.pub], tests: [web/unit]}\nauto: {branch: main}\n"+o.deliver)
	v.must(t, "keys", "generate")
	v.write(t, "environments/slipway.pub", string(v.must(t, "keys", "export")))
	v.commit(t, "first")
	v.must(t, "env", "init", v.dir)
	var added struct{ Hook, Secret string }
	if err := json.Unmarshal(v.must(t, append(register, v.origin)...), &added); err != nil {
		t.Fatal(err)
	}
	v.hook, v.secret = added.Hook, []byte(added.Secret)
	t.Cleanup(func() { v.stop(t, syscall.SIGTERM) }) // in order: what is killed leaves mounts to its next start
	return v
}

func (v *served) git(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", v.dir, "-c", "user.name=Ann", "-c", "user.email=ann@example.com"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit commits another text with a message, and gives the commit.
func (v *served) commit(t *testing.T, message string) string {
	t.Helper()
	v.n++
	v.write(t, "a.txt", fmt.Sprintf("text %d\n", v.n))
	v.git(t, "add", "-A")
	v.git(t, "commit", "-q", "-m", message)
	v.git(t, "push", "-q", "origin", "HEAD")
	return v.git(t, "rev-parse", "HEAD")
}

// start starts the server and waits until it is ready.
func (v *served) start(t *testing.T) {
	t.Helper()
	v.begin(t)
	if err := answers("http://" + v.address + "/healthz"); err != nil {
		t.Fatalf("%v\n%s", err, v.said())
	}
}

// begin starts the server, and waits for nothing.
func (v *served) begin(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(v.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	v.cmd = v.slipway("serve")
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // it must not outlive a test that is killed
	v.cmd.Stderr = log
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (v *served) said() string {
	data, _ := os.ReadFile(v.log)
	return string(data)
}

// stop ends the server by a signal and gives its exit code.
func (v *served) stop(t *testing.T, by syscall.Signal) int {
	t.Helper()
	if v.cmd == nil {
		return 0
	}
	_ = v.cmd.Process.Signal(by)
	_ = v.cmd.Wait() // the code says how
	code := v.cmd.ProcessState.ExitCode()
	v.cmd = nil
	return code
}

// deliver sends a webhook; 0 instead of a status: there was no answer.
func (v *served) deliver(t *testing.T, id string, body map[string]any) (int, string) {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, v.hook, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if req.Header, err = v.headers(id, data); err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(said)
}

// headers sign a webhook as the repository's forge does.
func (v *served) headers(id string, body []byte) (http.Header, error) {
	if v.forge == nil {
		return forge.Sign(v.secret, id, time.Now(), body)
	}
	sum := hmac.New(sha256.New, v.secret)
	_, _ = sum.Write(body) // a hash never fails
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("X-Gitea-Event", "push")
	h.Set("X-Gitea-Delivery", id)
	h.Set("X-Gitea-Signature", hex.EncodeToString(sum.Sum(nil)))
	return h, nil
}

func (v *served) pushOf(before, after string) map[string]any {
	push := map[string]any{"event": "push", "repository": "example/web", "ref": "refs/heads/main", "before": before, "after": after}
	if v.forge != nil {
		push["repository"] = map[string]any{"id": 7, "full_name": "example/web"}
		push["head_commit"] = map[string]any{"id": after, "message": "change"}
	}
	return push
}

// push delivers a push until it is accepted.
func (v *served) push(t *testing.T, id, before, after string) string {
	t.Helper()
	code, said := v.deliver(t, id, v.pushOf(before, after))
	if code != http.StatusAccepted {
		t.Fatalf("push: %d %s\n%s", code, said, v.said())
	}
	return said
}

func (v *served) client(t *testing.T) *client {
	t.Helper()
	c, err := serverFlags{}.need(&globals{root: v.root})
	if err != nil {
		t.Fatalf("%v\n%s", err, v.said())
	}
	return c
}

func (v *served) runs(t *testing.T) []ledger.Run {
	t.Helper()
	var all struct{ Runs []ledger.Run }
	if err := v.client(t).ask(t.Context(), http.MethodGet, "/api/v1/runs?limit=1000", nil, &all); err != nil {
		t.Fatal(err)
	}
	return all.Runs
}

// until waits until the run of a commit is as wanted.
func (v *served) until(t *testing.T, commit, what string, wanted func(ledger.Run) bool) ledger.Run {
	t.Helper()
	var last ledger.Run
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for _, r := range v.runs(t) {
			if r.Commit != commit {
				continue
			}
			var err error
			if last, err = v.client(t).run(t.Context(), r.ID); err != nil {
				t.Fatal(err)
			}
			if wanted(last) {
				return last
			}
		}
	}
	t.Fatalf("the run of %.12s never came to be %s: %+v\n%s", commit, what, last, v.said())
	return last
}

func promoted(r ledger.Run) bool {
	return r.Promotion != nil && r.Promotion.State == ledger.PromotionDone
}

func (v *served) runsInTest(t *testing.T) string {
	t.Helper()
	out := exec.Command("git", "-C", filepath.Join(v.root, "environments.git"), "show", "main:environments/test.yml")
	data, err := out.Output()
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(data), "sha256:")
	return "sha256:" + after[:min(64, len(after))]
}

func recordOf(t *testing.T, r ledger.Run) store.Run {
	t.Helper()
	var record store.Run
	if err := json.Unmarshal(r.Result, &record); err != nil {
		t.Fatalf("%v: %s", err, r.Result)
	}
	return record
}

// A push is built, tested, proved and promoted; it gives what the same commit
// gives on a laptop.
func TestServe(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { serves(t, newServed(t)) })
	t.Run("postgres", func(t *testing.T) {
		serves(t, servedOptions{database: postgres(t)}.serve(t))
	})
}

// postgres is an empty database of a server that ends with the test.
func postgres(t *testing.T) string {
	t.Helper()
	pg := &need.Postgres{Sync: true}
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	return pg.Database(t)
}

func serves(t *testing.T, v *served) {
	v.start(t)
	first := v.git(t, "rev-parse", "HEAD")
	v.push(t, "d1", zeros, first)
	run := v.until(t, first, "promoted", promoted)
	record := recordOf(t, run)
	if run.State != ledger.Passed || record.Unsigned != "" || !strings.Contains(run.Promotion.Detail, "test: done") {
		t.Fatalf("%s %s, unsigned %q, promotion %+v\n%s", run.State, run.Reason, record.Unsigned, run.Promotion, v.said())
	}
	if got, want := v.runsInTest(t), record.Images[0].Digest; got != want {
		t.Errorf("test runs %s, the run built %s", got, want)
	}
	laptop := newPlace(t)
	laptop.must(t, "images", "import", filepath.Join(filepath.Dir(v.root), "busybox.tar"), "--name", "example.com/base:1") // the same base
	v.git(t, "clone", "-q", v.origin, filepath.Join(laptop.dir, "clone"))
	laptop.dir = filepath.Join(laptop.dir, "clone")
	if local := laptop.run(t, "--event", "push"); local.Images[0].Digest != record.Images[0].Digest || local.Plan != record.Plan {
		t.Errorf("on a laptop %s of plan %s, on the server %s of plan %s", local.Images[0].Digest, local.Plan, record.Images[0].Digest, record.Plan)
	}

	t.Run("logs", func(t *testing.T) {
		if out := string(v.must(t, "logs", "-f", run.ID)); !strings.Contains(out, "web/unit | text 1") {
			t.Errorf("logs: %s", out)
		}
		if out := string(v.must(t, "runs", "last")); !strings.Contains(out, v.runs(t)[0].ID) {
			t.Errorf("the newest run is not last:\n%s", out)
		}
		if out := string(v.must(t, "runs")); !strings.Contains(out, run.ID) || !strings.Contains(out, "example/web") {
			t.Errorf("runs: %s", out)
		}
	})
	t.Run("again", func(t *testing.T) {
		for _, id := range []string{"d1", "d2"} {
			v.push(t, id, zeros, first)
		}
		if all := v.runs(t); len(all) != 1 || all[0].Attempts != 1 {
			t.Errorf("after a redelivery: %+v", all)
		}
	})
	t.Run("refused", func(t *testing.T) { v.refuses(t) })
	t.Run("skip", func(t *testing.T) {
		commit := v.commit(t, "no need [skip ci]")
		v.push(t, "skip", first, commit)
		if r := v.until(t, commit, "over", func(r ledger.Run) bool { return r.State.Over() }); r.State != ledger.Skipped {
			t.Errorf("%s %s", r.State, r.Reason)
		}
	})
	t.Run("fork", func(t *testing.T) { v.fork(t) })
	t.Run("tokens", func(t *testing.T) { v.tokens(t, run.ID) })
	t.Run("repos set", func(t *testing.T) { v.changes(t) })
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d\n%s", code, v.said())
	}
	v.nothingLeft(t, "after the server")
}

func (v *served) refuses(t *testing.T) {
	right := v.secret
	v.secret = []byte(forge.NewSecret())
	code, _ := v.deliver(t, "x", v.pushOf(zeros, v.git(t, "rev-parse", "HEAD")))
	v.secret = right
	if code != http.StatusForbidden {
		t.Errorf("another secret: %d", code)
	}
	body := v.pushOf(zeros, v.git(t, "rev-parse", "HEAD"))
	body["repository"] = "example/other"
	if code, said := v.deliver(t, "y", body); code != http.StatusUnprocessableEntity {
		t.Errorf("another repository: %d %s", code, said)
	}
	hook := v.hook
	v.hook += "0"
	if code, _ := v.deliver(t, "z", body); code != http.StatusNotFound {
		t.Errorf("another hook: %d", code)
	}
	v.hook = hook
}

// fork: held until its commit is allowed, then run unsigned and promoted nowhere.
func (v *served) fork(t *testing.T) {
	before := v.runsInTest(t)
	v.git(t, "checkout", "-q", "-b", "theirs")
	commit := v.commit(t, "from a fork")
	v.git(t, "push", "-q", "origin", commit+":refs/pull/1/head", ":theirs")
	v.git(t, "checkout", "-q", "main")
	body := map[string]any{
		"event": "pull_request", "repository": "example/web", "ref": "refs/pull/1/head", "after": commit,
		"pull_request": map[string]any{"number": 1, "action": "opened", "base": "main", "source": "other/web"},
	}
	if code, said := v.deliver(t, "pr", body); code != http.StatusAccepted {
		t.Fatalf("%d %s", code, said)
	}
	r := v.until(t, commit, "held", func(r ledger.Run) bool { return r.State == ledger.Held })
	cmd := v.slipway("allow", r.ID, "--commit", strings.Repeat("1", 40))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "look at it again") {
		t.Errorf("another commit was allowed: %s", out)
	}
	v.must(t, "allow", r.ID, "--commit", commit)
	r = v.until(t, commit, "over", func(r ledger.Run) bool { return r.State.Over() })
	if record := recordOf(t, r); r.State != ledger.Passed || record.Images[0].Provenance != "" || record.Images[0].Tests[0].Attestation != "" || r.Promotion != nil {
		t.Errorf("%s %s: %s", r.State, r.Reason, r.Result)
	}
	if got := v.runsInTest(t); got != before {
		t.Errorf("test runs %s, was %s", got, before)
	}
}

// changes: a repository is changed through the socket, and from elsewhere by an admin alone.
func (v *served) changes(t *testing.T) {
	var got struct{ Hook, Secret string }
	if err := json.Unmarshal(v.must(t, "--json", "repos", "set", "example/web", "--new-secret"), &got); err != nil {
		t.Fatal(err)
	}
	push := v.pushOf(zeros, v.git(t, "rev-parse", "HEAD"))
	if code, said := v.deliver(t, "old", push); code != http.StatusForbidden {
		t.Errorf("the old secret: %d %s", code, said)
	}
	v.secret = []byte(got.Secret)
	if code, said := v.deliver(t, "new", push); code != http.StatusAccepted || got.Hook != v.hook {
		t.Errorf("the new secret: %d %s, %s", code, said, got.Hook)
	}
	path := filepath.Join(t.TempDir(), "token")
	for _, role := range []string{"sysadmin", "admin"} {
		if err := os.WriteFile(path, v.must(t, "tokens", "add", "sets as "+role, "--role", role), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := v.slipway("repos", "set", "example/web", "--forks", "deny", "--server", "http://"+v.address, "--server-token", path).CombinedOutput()
		if (err == nil) != (role == "admin") {
			t.Errorf("%s: %v %s", role, err, out)
		}
	}
	if said := string(v.must(t, "--json", "repos", "ls")); !strings.Contains(said, `"forks":"deny"`) {
		t.Errorf("%s", said)
	}
	var all struct{ Deeds []ledger.Deed }
	if err := v.client(t).ask(t.Context(), http.MethodGet, "/api/v1/audit", nil, &all); err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%+v", all); !strings.Contains(text, "Actor:token sets as admin Action:repos set Object:example/web Detail:forks: deny, was hold") ||
		!strings.Contains(text, "of this machine Action:repos set Object:example/web Detail:secret: a new one") {
		t.Errorf("%s", text)
	}
}

func (v *served) tokens(t *testing.T, id string) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, v.must(t, "tokens", "add", "looker"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := serverFlags{server: "http://" + v.address, token: path}.client(&globals{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.run(t.Context(), id); err != nil || r.ID != id {
		t.Errorf("a viewer sees %v, %v", r.ID, err)
	}
	var r ledger.Run
	if err := c.ask(t.Context(), http.MethodPost, "/api/v1/runs/"+id+"/rerun", struct{}{}, &r); err == nil || !strings.Contains(err.Error(), "takes a developer") {
		t.Errorf("a viewer reruns: %v", err)
	}
	for _, path := range []string{"/", "/metrics", "/api/v1/runs", "/api/v1/runs/" + id, "/api/v1/runs/" + id + "/logs", "/api/v1/repos", "/api/v1/audit"} {
		for _, auth := range []string{"", "Bearer slipway_0000"} {
			req, err := http.NewRequest(http.MethodGet, "http://"+v.address+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", auth)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s to %q: %s", path, auth, resp.Status)
			}
		}
	}
	v.must(t, "tokens", "rm", "looker")
	if _, err := c.run(t.Context(), id); err == nil {
		t.Error("a removed token lets in")
	}
}

// A server that is stopped lets what runs go on for a while, and gives back what
// does not end; at its next start that goes on.
func TestServeDrains(t *testing.T) {
	v := newServed(t)
	v.write(t, ".ci.yml", "version: 1\nimages: {web: {build: ., tests: {unit: {command: \"cat /a.txt; test -e /gone || sleep 600\", timeout: 20m}}}}\n")
	commit := v.commit(t, "slow")
	v.env = append(v.env, "SLIPWAY_DRAIN=1s")
	v.start(t)
	v.push(t, "d", zeros, commit)
	v.until(t, commit, "running", func(r ledger.Run) bool { return r.State == ledger.Running })
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d\n%s", code, v.said())
	}
	v.nothingLeft(t, "after the drain")
	v.start(t)
	r := v.until(t, commit, "running again", func(r ledger.Run) bool { return r.State == ledger.Running && r.Attempts == 2 })
	v.must(t, "cancel", r.ID)
	r = v.until(t, commit, "over", func(r ledger.Run) bool { return r.State.Over() })
	if r.State != ledger.Canceled || !strings.Contains(r.Reason, "canceled by user 0") {
		t.Errorf("%s %s", r.State, r.Reason)
	}
}
