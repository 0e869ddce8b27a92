package git_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"slipway/internal/git"
)

// origin is a bare repository that git's own programs serve, and a clone to push from.
type origin struct {
	dir, work string
	t         *testing.T
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	base := t.TempDir()
	o := &origin{filepath.Join(base, "shop.git"), filepath.Join(base, "work"), t}
	o.in(base, "init", "-q", "--bare", "-b", "main", o.dir)
	o.in(base, "init", "-q", "-b", "main", o.work)
	o.git("remote", "add", "origin", o.dir)
	return o
}

func (o *origin) in(dir string, args ...string) string {
	o.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "core.autocrlf=false", "-c", "gc.auto=0"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		o.t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (o *origin) git(args ...string) string { o.t.Helper(); return o.in(o.work, args...) }

// commit makes a commit that changes a file, pushes the branch and gives its id.
func (o *origin) commit(name, text string) string {
	o.t.Helper()
	write(o.t, filepath.Join(o.work, name), text)
	o.git("add", "-A")
	o.git("commit", "-qm", "Change "+name)
	o.git("push", "-q", "-f", "origin", "HEAD")
	return o.git("rev-parse", "HEAD")
}

// many puts commits that change nothing on the branch that is checked out: with
// one process, because one for each takes long.
func (o *origin) many(n int) {
	o.t.Helper()
	branch := o.git("symbolic-ref", "HEAD")
	tree, head := o.git("write-tree"), o.git("rev-parse", "-q", "--verify", "HEAD")
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "commit %s\ncommitter t <t@example.com> %d +0000\ndata 1\nx\n", branch, 1700000000+i)
		if i == 0 {
			fmt.Fprintf(&in, "from %s\nM 040000 %s \n", head, tree)
		}
	}
	cmd := exec.Command("git", "-C", o.work, "fast-import", "--quiet", "--force")
	cmd.Stdin = strings.NewReader(in.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		o.t.Fatalf("git fast-import: %v: %s", err, out)
	}
}

// smart serves a directory of repositories with git http-backend.
func smart(t *testing.T, dir string) http.Handler {
	t.Helper()
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	return &cgi.Handler{
		Stderr: io.Discard, Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
}

// http serves the repository and gives it as a remote, and a count of the bytes sent.
func (o *origin) http() git.Remote {
	o.t.Helper()
	server := httptest.NewServer(smart(o.t, filepath.Dir(o.dir)))
	o.t.Cleanup(server.Close)
	return git.Remote{URL: server.URL + "/shop.git", Policy: git.Policy{Plain: true}}
}

func (o *origin) file() git.Remote {
	return git.Remote{URL: "file://" + o.dir, Policy: git.Policy{File: true}}
}

func newMirror(t *testing.T) *git.Mirror {
	t.Helper()
	return git.NewMirror(filepath.Join(t.TempDir(), "mirror"), git.Limits{})
}

const onMain = "refs/heads/main"

// TestFetch: each way brings exactly the commit, and follows the branch as it moves.
func TestFetch(t *testing.T) {
	o := newOrigin(t)
	var ids []string
	o.commit("a", "first")
	o.many(200)
	ids = append(ids, o.commit("a", "0"))
	for way, r := range map[string]git.Remote{"http": o.http(), "file": o.file(), "ssh": o.ssh()} {
		t.Run(way, func(t *testing.T) {
			m := newMirror(t)
			for i := range 3 {
				c, err := m.Fetch(t.Context(), r, onMain, ids[len(ids)-1])
				if err != nil || c.ID != ids[len(ids)-1] || !strings.HasPrefix(c.Message, "Change ") || c.Author.Email != "t@example.com" {
					t.Fatalf("%+v, %v", c, err)
				}
				ids = append(ids, o.commit("a", way+fmt.Sprint(i)))
			}
			// The branch has moved on by one, and by many.
			behind := ids[len(ids)-2]
			o.many(150)
			ids = append(ids, o.commit("b", way))
			for _, want := range []string{behind, o.git("rev-parse", "HEAD~100"), ids[0], ""} {
				c, err := m.Fetch(t.Context(), r, onMain, want)
				if want == "" {
					want = ids[len(ids)-1]
				}
				if err != nil || c.ID != want {
					t.Errorf("%s: %+v, %v", want, c, err)
				}
			}
		})
	}
}

// TestShallow: the first fetch of a branch brings one commit, later ones what is new.
func TestShallow(t *testing.T) {
	o := newOrigin(t)
	for i := range 5 {
		o.commit("f", strings.Repeat(fmt.Sprint(i), 100))
	}
	m, r := newMirror(t), o.http()
	head, before := o.git("rev-parse", "HEAD"), o.git("rev-parse", "HEAD~1")
	if _, err := m.Fetch(t.Context(), r, onMain, head); err != nil {
		t.Fatal(err)
	}
	if has, err := m.Has(before); has || err != nil {
		t.Errorf("more history than asked for was fetched: %v, %v", has, err)
	}
	if is, known, err := m.IsAncestor(before, head); is || known || err != nil {
		t.Errorf("what is not here is answered: %v, %v, %v", is, known, err)
	}
	if base, err := m.Base(t.Context(), r, git.Point{Ref: onMain, Commit: before}, git.Point{Ref: onMain, Commit: head}); err != nil || base != before {
		t.Errorf("base %s, %v; want %s", base, err, before)
	}
	if is, known, err := m.IsAncestor(before, head); !is || !known || err != nil {
		t.Errorf("what is here is not answered: %v, %v, %v", is, known, err)
	}
}

func TestForcedPush(t *testing.T) {
	o := newOrigin(t)
	first := o.commit("a", "1")
	second := o.commit("a", "2")
	o.git("reset", "-q", "--hard", first)
	third := o.commit("a", "3")
	r := o.http()
	m := newMirror(t)
	var gone *git.NotThere
	if _, err := m.Fetch(t.Context(), r, onMain, second); !errors.As(err, &gone) || gone.Commit != second || !strings.Contains(err.Error(), "forced push") {
		t.Errorf("a commit that a forced push removed: %v", err)
	}
	if _, err := m.Fetch(t.Context(), r, onMain, third); err != nil {
		t.Error(err)
	}
	if err := m.FetchAny(t.Context(), r, second); !errors.As(err, &gone) {
		t.Errorf("a server that gives out no such commits: %v", err)
	}
	o.in(o.dir, "config", "uploadpack.allowAnySHA1InWant", "true")
	if err := m.FetchAny(t.Context(), r, second); err != nil {
		t.Error(err)
	}
	if got, err := m.Changed(t.Context(), second, third); err != nil || !slices.Equal(got, []string{"a"}) {
		t.Errorf("changed %v, %v", got, err)
	}
	if _, err := m.Fetch(t.Context(), r, onMain, second); !errors.As(err, &gone) {
		t.Errorf("that it is in the mirror makes it part of the branch: %v", err)
	}
	if _, err := m.Fetch(t.Context(), r, "refs/heads/other", ""); !errors.As(err, &gone) || gone.Commit != "" {
		t.Errorf("a ref that is not there: %v", err)
	}
	o.in(o.dir, "update-ref", "-d", onMain)
	if _, err := m.Fetch(t.Context(), r, onMain, third); !errors.As(err, &gone) {
		t.Errorf("an empty repository: %v", err)
	}
}

func TestTagsAndOtherRefs(t *testing.T) {
	o := newOrigin(t)
	head := o.commit("a", "1")
	o.git("tag", "light")
	o.git("tag", "-a", "-m", "v1", "v1")
	o.git("tag", "-a", "-m", "again", "nested", "v1")
	o.git("push", "-q", "origin", "--tags", "HEAD:refs/pull/7/head")
	for way, r := range map[string]git.Remote{"http": o.http(), "file": o.file()} {
		for _, ref := range []string{"refs/tags/light", "refs/tags/v1", "refs/tags/nested", "refs/pull/7/head"} {
			for _, want := range []string{"", head} {
				if c, err := newMirror(t).Fetch(t.Context(), r, ref, want); err != nil || c.ID != head {
					t.Errorf("%s %s: %+v, %v", way, ref, c, err)
				}
			}
		}
		refs, err := r.List(t.Context(), git.Limits{}, "refs/heads/", "refs/tags/")
		if err != nil || refs.Default != onMain || len(refs.At) != 4 || refs.At["refs/tags/v1"] != head {
			t.Errorf("%s: %+v, %v", way, refs, err)
		}
	}
}

// TestBaseOfAPullRequest: of branches that parted long ago.
func TestBaseOfAPullRequest(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "0")
	fork := o.commit("b", "0")
	o.git("checkout", "-q", "-b", "topic")
	o.commit("c", "1")
	o.many(90)
	topic := o.commit("c", "2")
	o.git("checkout", "-q", "main")
	o.many(90)
	o.commit("b", "1")
	o.git("checkout", "-q", "--orphan", "alone")
	o.commit("d", "1")
	r := o.http()
	for way, m := range map[string]*git.Mirror{"new": newMirror(t), "again": newMirror(t)} {
		got, err := m.Base(t.Context(), r, git.Point{Ref: onMain}, git.Point{Ref: "refs/heads/topic", Commit: topic})
		if err != nil || got != fork {
			t.Fatalf("%s: base %s, %v; want %s", way, got, err, fork)
		}
		paths, err := m.Changed(t.Context(), got, topic)
		if err != nil || !slices.Equal(paths, []string{"c"}) {
			t.Errorf("%s: changed %v, %v", way, paths, err)
		}
		if _, err := m.Base(t.Context(), r, git.Point{Ref: onMain}, git.Point{Ref: "refs/heads/alone"}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("nothing in common: %v", err)
		}
	}
}

func TestChangedInAMirror(t *testing.T) {
	o := newOrigin(t)
	write(t, filepath.Join(o.work, "web/index.html"), strings.Repeat("hello\n", 20))
	base := o.commit("run.sh", "true")
	o.git("mv", "web/index.html", "web/start.html")
	o.git("update-index", "--chmod=+x", "run.sh")
	o.git("commit", "-qm", "x")
	head := o.git("rev-parse", "HEAD")
	o.git("push", "-q", "origin", "HEAD")
	m, r := newMirror(t), o.http()
	if _, err := m.Base(t.Context(), r, git.Point{Ref: onMain, Commit: base}, git.Point{Ref: onMain}); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string][]string{base: {"run.sh", "web/index.html", "web/start.html"}, "": {"run.sh", "web/start.html"}, head: {}} {
		if got, err := m.Changed(t.Context(), from, head); err != nil || !slices.Equal(got, want) {
			t.Errorf("since %q: %v, %v; want %v", from, got, err, want)
		}
	}
	if _, err := m.Changed(t.Context(), strings.Repeat("1", 40), head); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("since a commit that is not here: %v", err)
	}
}

// TestFetchesAtOnce: of one repository, by several goroutines with mirrors of their own opening.
func TestFetchesAtOnce(t *testing.T) {
	o := newOrigin(t)
	var ids []string
	for i := range 8 {
		ids = append(ids, o.commit("f", fmt.Sprint(i)))
	}
	r, dir := o.http(), filepath.Join(t.TempDir(), "mirror")
	var group sync.WaitGroup
	for i, id := range ids {
		group.Go(func() {
			m := git.NewMirror(dir, git.Limits{})
			if _, err := m.Fetch(t.Context(), r, onMain, id); err != nil {
				t.Error(err)
				return
			}
			out := filepath.Join(t.TempDir(), "tree")
			if err := m.Checkout(t.Context(), id, out); err != nil {
				t.Error(err)
				return
			}
			if got, err := os.ReadFile(filepath.Join(out, "f")); err != nil || string(got) != fmt.Sprint(i) {
				t.Errorf("%q, %v; want %d", got, err, i)
			}
		})
	}
	group.Wait()
}

// TestCutOff: a fetch that ends in the middle leaves a mirror that the next one can use.
func TestCutOff(t *testing.T) {
	o := newOrigin(t)
	big := make([]byte, 1<<20)
	for i := range big {
		big[i] = byte(i * i >> 7)
	}
	head := o.commit("big", string(big))
	backend := smart(t, filepath.Dir(o.dir))
	var cut func(http.ResponseWriter, *http.Request) http.ResponseWriter
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if cut != nil && q.Method == http.MethodPost {
			w = cut(w, q)
		}
		backend.ServeHTTP(w, q)
	}))
	defer server.Close()
	dir := filepath.Join(t.TempDir(), "mirror")
	m := git.NewMirror(dir, git.Limits{})
	r := git.Remote{URL: server.URL + "/shop.git", Policy: git.Policy{Plain: true}}
	for _, at := range []int{0, 8, 60, 500} {
		cut = func(w http.ResponseWriter, _ *http.Request) http.ResponseWriter { return &truncated{w, at, nil} }
		if _, err := m.Fetch(t.Context(), r, onMain, head); err == nil {
			t.Errorf("an answer that ends after %d bytes was taken", at)
		}
		if has, err := m.Has(head); has || err != nil {
			t.Errorf("cut off after %d bytes: %v, %v", at, has, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cut = func(w http.ResponseWriter, _ *http.Request) http.ResponseWriter {
		return &truncated{w, 100, func() { cancel(errors.New("stopped by the test")) }}
	}
	if _, err := m.Fetch(ctx, r, onMain, head); err == nil || !strings.Contains(err.Error(), "stopped by the test") {
		t.Errorf("a fetch that was cancelled: %v", err)
	}
	// What a killed process leaves.
	write(t, filepath.Join(dir, "incoming-1/pack"), "half")
	write(t, filepath.Join(dir, "tips", head+".new"), "ha")
	write(t, filepath.Join(dir, "objects/pack/pack-0000000000000000000000000000000000000000.idx"), "")
	cut = nil
	if _, err := m.Fetch(t.Context(), r, onMain, head); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "incoming-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := m.Checkout(t.Context(), head, filepath.Join(t.TempDir(), "tree")); err != nil {
		t.Error(err)
	}
}

// truncated ends an answer early.
type truncated struct {
	http.ResponseWriter
	left int
	then func()
}

func (w *truncated) Write(p []byte) (int, error) {
	if w.left <= 0 && w.then != nil {
		w.then()
	}
	n := min(len(p), w.left)
	w.left -= n
	if _, err := w.ResponseWriter.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

func TestLimits(t *testing.T) {
	o := newOrigin(t)
	head := o.commit("zeros", string(make([]byte, 8<<20)))
	for name, limits := range map[string]git.Limits{
		"Pack": {Pack: 2000}, "Object": {Object: 1 << 20}, "Unpacked": {Unpacked: 1 << 20}, "Objects": {Objects: 2},
	} {
		m := git.NewMirror(filepath.Join(t.TempDir(), "mirror"), limits)
		_, err := m.Fetch(t.Context(), o.http(), onMain, head)
		if err == nil || !strings.Contains(err.Error(), "raise the server's limit") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := git.NewMirror(filepath.Join(t.TempDir(), "mirror"), git.Limits{Time: 1}).Fetch(t.Context(), o.http(), onMain, head); err == nil || !strings.Contains(err.Error(), "took longer") {
		t.Errorf("Time: %v", err)
	}
}

func TestRemotePolicy(t *testing.T) {
	for address, allowed := range map[string]bool{
		"https://forge.example/shop.git": true, "https://forge.example:8443/shop.git": true, "ssh://git@forge.example/shop.git": true,
		"git@forge.example:shop.git": true, "ssh://git@forge.example:2222/shop.git": true,
		"http://forge.example/shop.git": false, "file:///srv/shop.git": false, "/srv/shop.git": false, "shop.git": false, "git://forge.example/shop.git": false,
		"ftp://forge.example/shop.git": false, "ext::sh -c id": false, "--upload-pack=id": false, "-oProxyCommand=id": false, "ssh://-oProxyCommand=id/shop.git": false,
		"ssh://-x@forge.example/shop.git": false, "git@forge.example:-x": false, "https://u:hunter2@forge.example/shop.git": false, "https://u@forge.example/shop.git": false,
		"https://forge.example/shop.git?x=y": false, "https://forge.example": false, "https:///shop.git": false, "https://forge.example/a/../../shop.git": false,
		"https://forge.example/shop.git\nx": false, "https://forge.example/sh op.git": false, "": false,
	} {
		err := git.Policy{}.Check(address)
		if (err == nil) != allowed {
			t.Errorf("%q: %v", address, err)
		}
		if err != nil && (!errors.Is(err, git.ErrAddress) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: %v", address, err)
		}
	}
	some := git.Policy{Hosts: []string{"Forge.example"}, Plain: true, File: true}
	for address, allowed := range map[string]bool{"http://forge.example/a": true, "https://other.example/a": false, "/srv/a": true, "file:///srv/a": true} {
		if err := some.Check(address); (err == nil) != allowed {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestRefNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"refs/heads/main": true, "refs/pull/7/head": true, "refs/heads/ä/x-y": true, "main": false, "HEAD": false, "refs/heads/../x": false, "refs/heads/a b": false,
		"refs/heads/.a": false, "refs/heads/a.lock": false, "refs/heads//a": false, "refs/heads/": false, "refs/heads/a@{1}": false, "refs/heads/a:b": false, "-x": false, "refs/heads/a\n": false, "refs/heads/a*": false,
	} {
		if err := git.CheckRef(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestRedirects: within a host they are followed, to another they are not, and
// no credential goes there.
func TestRedirects(t *testing.T) {
	o := newOrigin(t)
	head := o.commit("a", "1")
	backend := smart(t, filepath.Dir(o.dir))
	var visited bool
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { visited = true; backend.ServeHTTP(w, q) }))
	defer other.Close()
	to := "/shop.git"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if rest, ok := strings.CutPrefix(q.URL.Path, "/moved"); ok {
			http.Redirect(w, q, to+rest+"?"+q.URL.RawQuery, http.StatusFound)
			return
		}
		backend.ServeHTTP(w, q)
	}))
	defer server.Close()
	r := git.Remote{URL: server.URL + "/moved", Token: "s3cret", Policy: git.Policy{Plain: true}}
	if _, err := newMirror(t).Fetch(t.Context(), r, onMain, head); err != nil {
		t.Errorf("within the host: %v", err)
	}
	to = other.URL + "/shop.git"
	if _, err := newMirror(t).Fetch(t.Context(), r, onMain, head); err == nil || visited || !strings.Contains(err.Error(), "register the repository") {
		t.Errorf("to another host: visited %v, %v", visited, err)
	}
}

func TestNoSuchRepository(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1")
	for way, r := range map[string]git.Remote{"http": o.http(), "file": o.file(), "ssh": o.ssh()} {
		r.URL = strings.Replace(r.URL, "shop.git", "nothing.git", 1)
		if _, err := newMirror(t).Fetch(t.Context(), r, onMain, ""); err == nil || !strings.Contains(err.Error(), "no such repository") {
			t.Errorf("%s: %v", way, err)
		}
	}
}

// A directory with files checked out is fetched like a bare one: who tries a server
// out has nothing else.
func TestFetchFromAWorkingTree(t *testing.T) {
	o := newOrigin(t)
	id := o.commit("a", "1")
	r := o.file()
	r.URL = "file://" + o.work
	if c, err := newMirror(t).Fetch(t.Context(), r, onMain, id); err != nil || c.ID != id {
		t.Errorf("%+v, %v", c, err)
	}
}

// A mirror that is begun anew gives what it gave before, in one pack.
func TestMirrorIsClearedAndFetchedAnew(t *testing.T) {
	o := newOrigin(t)
	m := git.NewMirror(filepath.Join(t.TempDir(), "mirror"), git.Limits{})
	r := git.Remote{URL: "file://" + o.dir, Policy: git.Policy{File: true}}
	if n, err := m.Packs(); n != 0 || err != nil {
		t.Errorf("before anything is fetched: %d, %v", n, err)
	}
	var commits []string
	for n := range 3 {
		commits = append(commits, o.commit("a", fmt.Sprint("text ", n)))
		if _, err := m.Fetch(t.Context(), r, "refs/heads/main", commits[n]); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := m.Packs(); n != 3 || err != nil {
		t.Errorf("after three fetches: %d, %v", n, err)
	}
	if err := m.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if has, err := m.Has(commits[2]); has || err != nil {
		t.Errorf("after it is cleared: %v, %v", has, err)
	}
	for _, commit := range []string{commits[2], commits[0]} {
		if _, err := m.Fetch(t.Context(), r, "refs/heads/main", commit); err != nil {
			t.Fatal(err)
		}
		if err := m.Checkout(t.Context(), commit, filepath.Join(t.TempDir(), "out")); err != nil {
			t.Error(err)
		}
	}
}
