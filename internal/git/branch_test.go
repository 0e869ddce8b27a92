package git_test

import (
	"bytes"
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
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/internal/git"
)

var when = time.Date(2026, 11, 25, 20, 0, 0, 0, time.UTC)

// served gives the ways to reach a new bare repository: where it is, and over
// HTTP through git's own server.
func served(t *testing.T) (dir string, reached map[string]func() *git.Repository) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "env.git")
	if err := git.Create(dir, "main"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("git", "-C", dir, "config", "http.receivepack", "true").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{
		Stderr: io.Discard, Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(dir), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if user, token, _ := q.BasicAuth(); user != "slipway" || token != "s3cret" {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, q)
	}))
	t.Cleanup(server.Close)
	copies := t.TempDir()
	open := func(address string) func() *git.Repository {
		return func() *git.Repository {
			r, err := git.At(address, git.Access{Copies: copies, Token: "s3cret"})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
	}
	return dir, map[string]func() *git.Repository{"here": open(dir), "as a URL": open("file://" + dir), "over HTTP": open(server.URL + "/env.git")}
}

func draft(base, name, text string) git.Draft {
	return git.Draft{
		Base: base, Files: map[string][]byte{name: []byte(text)}, Author: git.Person{Name: "Ann <x>", Email: "ann@example.com"},
		When: when, Message: "Change " + name + "\n\nSlipway-Promotion: p1\nSlipway-Actor: Ann <ann@example.com>\n",
	}
}

// put makes a commit on main and gives its id.
func put(t *testing.T, r *git.Repository, base, name, text string) string {
	t.Helper()
	p, err := r.Propose(draft(base, name, text))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Push(t.Context(), "main", p); err != nil {
		t.Fatal(err)
	}
	return p.ID
}

func TestBranchFromTheFirstCommitOn(t *testing.T) {
	dir, all := served(t)
	head := ""
	for _, way := range []string{"here", "over HTTP", "as a URL", "over HTTP"} {
		r := all[way]()
		got, err := r.Head(t.Context(), "main")
		if head == "" && !errors.Is(err, git.ErrNoBranch) || head != "" && (err != nil || got != head) {
			t.Fatalf("%s: head %q, %v; want %q", way, got, err, head)
		}
		first := put(t, r, head, "environments/prod.yml", "one "+way+head)
		if _, err := r.Head(t.Context(), "main"); err != nil {
			t.Fatal(err)
		}
		head = put(t, r, first, "environments/deep/er.txt", "x"+head)
		if out, err := exec.Command("git", "-C", dir, "fsck", "--strict").CombinedOutput(); err != nil {
			t.Fatalf("git fsck: %v: %s", err, out)
		}
	}
	out, err := exec.Command("git", "-C", dir, "log", "--format=%an %ae %s", "-1", "main").Output()
	if err != nil || string(out) != "Ann x ann@example.com Change environments/deep/er.txt\n" {
		t.Errorf("git log says %q, %v", out, err)
	}
	out, err = exec.Command("git", "-C", dir, "ls-tree", "-r", "--name-only", "main").Output()
	if err != nil || string(out) != "environments/deep/er.txt\nenvironments/prod.yml\n" {
		t.Errorf("git ls-tree says %q, %v", out, err)
	}
}

func TestReading(t *testing.T) {
	dir, all := served(t)
	here := all["here"]()
	if _, err := here.Head(t.Context(), "main"); !errors.Is(err, git.ErrNoBranch) {
		t.Fatal(err)
	}
	var ids []string
	for i, text := range []string{"one", "two", "two", "three"} {
		base := ""
		if i > 0 {
			base = ids[i-1]
		}
		name := "a/b.yml"
		if i == 2 {
			name, text = "a/other.yml", "x"
		}
		ids = append(ids, put(t, here, base, name, text))
		if _, err := here.Head(t.Context(), "main"); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("git", "-C", dir, "gc", "-q").CombinedOutput(); err != nil { // packs, and packed-refs
		t.Fatalf("%v: %s", err, out)
	}
	for way, open := range all {
		t.Run(way, func(t *testing.T) {
			r := open()
			head, err := r.Head(t.Context(), "main")
			if err != nil || head != ids[3] {
				t.Fatalf("head %s, %v", head, err)
			}
			var walk []string
			err = r.Walk(head, "a/b.yml", func(c git.Commit, data []byte) (bool, error) {
				walk = append(walk, fmt.Sprint(c.ID == ids[3], c.When.Equal(when), string(data)))
				return true, nil
			})
			if got := strings.Join(walk, ","); err != nil || got != "true truethree,false truetwo,false trueone" {
				t.Errorf("walked %s, %v", got, err)
			}
			if names, err := r.List(head, "a"); err != nil || strings.Join(names, ",") != "b.yml,other.yml" {
				t.Errorf("list: %v, %v", names, err)
			}
			if names, err := r.List(head, "nothing"); err != nil || names != nil {
				t.Errorf("list of nothing: %v, %v", names, err)
			}
			if _, err := r.File(head, "a/c.yml"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a file that is not there: %v", err)
			}
			if _, err := r.File(head, "a"); err == nil {
				t.Error("a directory was read as a file")
			}
			for _, c := range []struct {
				head, commit string
				want         bool
			}{{ids[3], ids[0], true}, {ids[3], ids[3], true}, {ids[0], ids[3], false}, {ids[3], strings.Repeat("1", 40), false}} {
				if got, err := r.Contains(c.head, c.commit); err != nil || got != c.want {
					t.Errorf("%s in %s: %v, %v", c.commit, c.head, got, err)
				}
			}
			c, err := r.Commit(head)
			if err != nil || c.Author.Email != "ann@example.com" || len(c.Parents) != 1 || c.Parents[0] != ids[2] {
				t.Errorf("commit: %+v, %v", c, err)
			}
		})
	}
}

// TestPushLosesToWhoWasFirst: nothing of the loser is left, and he is told.
func TestPushLosesToWhoWasFirst(t *testing.T) {
	_, all := served(t)
	for way, open := range all {
		r := open()
		base, err := r.Head(t.Context(), "main")
		if err != nil && !errors.Is(err, git.ErrNoBranch) {
			t.Fatal(err)
		}
		late, err := r.Propose(draft(base, "f", "late "+way))
		if err != nil {
			t.Fatal(err)
		}
		other := open()
		_, _ = other.Head(t.Context(), "main")
		first := put(t, other, base, "f", "first "+way)
		var moved *git.Moved
		if err := r.Push(t.Context(), "main", late); !errors.As(err, &moved) || moved.To != first {
			t.Errorf("%s: %v, want moved to %s", way, err, first)
		}
		if head, err := r.Head(t.Context(), "main"); err != nil || head != first {
			t.Errorf("%s: head %s, %v", way, head, err)
		}
		if data, err := r.File(first, "f"); err != nil || string(data) != "first "+way {
			t.Errorf("%s: %q, %v", way, data, err)
		}
	}
}

func TestProposals(t *testing.T) {
	_, all := served(t)
	r := all["here"]()
	_, _ = r.Head(t.Context(), "main")
	head := put(t, r, "", "a/x.yml", "x")
	if _, err := r.Head(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	one, err := r.Propose(draft(head, "a/y.yml", "y"))
	two, again := r.Propose(draft(head, "a/y.yml", "y"))
	if err != nil || again != nil || one.ID != two.ID {
		t.Errorf("the same draft made %v and %v (%v, %v)", one, two, err, again)
	}
	if p, err := r.Propose(draft(head, "a/x.yml", "x")); p != nil || err != nil {
		t.Errorf("no change made %v, %v", p, err)
	}
	for _, name := range []string{"a", "a/x.yml/below", "a/.git/config", "../up"} {
		if p, err := r.Propose(draft(head, name, "z")); err == nil {
			t.Errorf("%s was proposed as %s", name, p.ID)
		}
	}
	// It was made twice, it is pushed once.
	if err := errors.Join(r.Push(t.Context(), "main", one), r.Push(t.Context(), "main", two)); err != nil {
		t.Errorf("pushed twice: %v", err)
	}
}

// TestRacesHaveOneWinner: many write the first, second, … commit at once.
func TestRacesHaveOneWinner(t *testing.T) {
	dir, all := served(t)
	const rounds, racers = 5, 4
	for round := range rounds {
		var wins, lost int
		var mu sync.Mutex
		var group sync.WaitGroup
		base := ""
		if round > 0 {
			var err error
			if base, err = all["here"]().Head(t.Context(), "main"); err != nil {
				t.Fatal(err)
			}
		}
		for i := range racers {
			group.Go(func() {
				r := all[[]string{"here", "over HTTP"}[i%2]]()
				_, err := r.Head(t.Context(), "main")
				var p *git.Proposal
				if err == nil || errors.Is(err, git.ErrNoBranch) {
					p, err = r.Propose(draft(base, "f", fmt.Sprint(round, i)))
				}
				if err == nil {
					err = r.Push(t.Context(), "main", p)
				}
				mu.Lock()
				defer mu.Unlock()
				var moved *git.Moved
				switch {
				case err == nil:
					wins++
				case errors.As(err, &moved):
					lost++
				default:
					t.Error(err)
				}
			})
		}
		group.Wait()
		if wins != 1 || lost != racers-1 {
			t.Fatalf("round %d: %d won, %d lost", round, wins, lost)
		}
	}
	out, err := exec.Command("git", "-C", dir, "rev-list", "--count", "main").Output()
	if err != nil || strings.TrimSpace(string(out)) != fmt.Sprint(rounds) {
		t.Errorf("%s commits, %v", out, err)
	}
}

func TestStaleLock(t *testing.T) {
	dir, all := served(t)
	r := all["here"]()
	_, _ = r.Head(t.Context(), "main")
	head := put(t, r, "", "f", "1")
	if _, err := r.Head(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(dir, "refs/heads/main.lock")
	write(t, lock, "")
	p, err := r.Propose(draft(head, "f", "2"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Push(t.Context(), "main", p); err == nil || !strings.Contains(err.Error(), "main") {
		t.Errorf("a lock that somebody may hold was not respected: %v", err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(lock, old, old); err != nil {
		t.Fatal(err)
	}
	if err := r.Push(t.Context(), "main", p); err != nil {
		t.Errorf("a lock that a crash left: %v", err)
	}
}

func TestHookRefuses(t *testing.T) {
	dir, all := served(t)
	write(t, filepath.Join(dir, "hooks/pre-receive"), "#!/bin/sh\necho closed for the night >&2\nexit 1\n")
	if err := os.Chmod(filepath.Join(dir, "hooks/pre-receive"), 0o755); err != nil {
		t.Fatal(err)
	}
	for way, open := range all {
		r := open()
		_, _ = r.Head(t.Context(), "main")
		p, err := r.Propose(draft("", "f", "1"))
		if err != nil {
			t.Fatal(err)
		}
		var denied *git.Denied
		if err := r.Push(t.Context(), "main", p); !errors.As(err, &denied) || !strings.Contains(err.Error(), "hook") {
			t.Errorf("%s: %v", way, err)
		}
	}
}

func TestWrongToken(t *testing.T) {
	_, all := served(t)
	r, err := git.At(all["over HTTP"]().String(), git.Access{Copies: t.TempDir(), Token: "wrong"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Head(t.Context(), "main"); err == nil || !strings.Contains(err.Error(), "--git-token") {
		t.Errorf("the error %v does not say what to do", err)
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"https://ann:secret@forge.example/env.git": "https://ann@forge.example/env.git",
		"git@forge.example:team/env.git":           "git@forge.example:team/env.git",
		"/srv/env.git":                             "/srv/env.git",
		"file:///srv/env.git":                      "/srv/env.git",
	} {
		if r, err := git.At(address, git.Access{}); err != nil || r.String() != want {
			t.Errorf("%s is shown as %v, %v", address, r, err)
		}
	}
	if r, err := git.At("git://forge.example/env.git", git.Access{}); err == nil {
		t.Errorf("%s would be read without encryption", r)
	}
}

func TestTrailers(t *testing.T) {
	message := "Promote web\n\nKey: not a trailer here\n\nSlipway-Promotion: p\nSlipway-Image: web sha256:00: x\n"
	if got := fmt.Sprint(git.Trailers(message)); got != "[{Slipway-Promotion p} {Slipway-Image web sha256:00: x}]" {
		t.Errorf("got %s", got)
	}
	for _, none := range []string{"", "Key: value", "subject\n\nwords, and\nKey: value\n"} {
		if got := git.Trailers(none); got != nil {
			t.Errorf("%q: %v", none, got)
		}
	}
}

// TestCopyIsMadeAgain: a copy that somebody removed costs a fetch, no more.
func TestCopyIsMadeAgain(t *testing.T) {
	_, all := served(t)
	r := all["here"]()
	_, _ = r.Head(t.Context(), "main")
	head := put(t, r, "", "f", "1")
	copies := t.TempDir()
	for range 2 {
		far, err := git.At(all["over HTTP"]().String(), git.Access{Copies: copies, Token: "s3cret"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := far.Head(t.Context(), "main")
		if err != nil || got != head {
			t.Fatal(got, err)
		}
		if data, err := far.File(head, "f"); err != nil || !bytes.Equal(data, []byte("1")) {
			t.Fatal(data, err)
		}
		all, err := filepath.Glob(filepath.Join(copies, "*"))
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		if left, err := filepath.Glob(filepath.Join(all[0], "incoming-*")); err != nil || len(left) > 0 {
			t.Error(left, err)
		}
		if err := os.RemoveAll(all[0]); err != nil {
			t.Fatal(err)
		}
	}
}
