package git_test

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"slipway/internal/git"
)

// repo makes a repository with the real git and returns its directory.
func repo(t *testing.T) (string, func(args ...string)) {
	t.Helper()
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	run("init", "-q", "-b", "main")
	return dir, run
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOpenOutsideGit(t *testing.T) {
	if _, err := git.Open(t.TempDir()); !errors.Is(err, git.ErrNone) {
		t.Fatalf("outside git: %v", err)
	}
	dir, _ := repo(t)
	if _, err := git.Open(dir); !errors.Is(err, git.ErrNone) {
		t.Fatalf("before the first commit: %v", err)
	}
}

func TestUncommitted(t *testing.T) {
	dir, run := repo(t)
	write(t, filepath.Join(dir, "a.txt"), "one")
	write(t, filepath.Join(dir, ".gitignore"), "ignored/\n")
	run("add", "-A")
	run("commit", "-qm", "first")
	steps := []struct {
		name string
		do   func()
		want int
	}{
		{"as committed", func() {}, 0},
		{"an ignored file", func() { write(t, filepath.Join(dir, "ignored/x"), "x") }, 0},
		{"an untracked file", func() { write(t, filepath.Join(dir, "sub/new"), "x") }, 1},
		{"the same, committed", func() { run("add", "-A"); run("commit", "-qm", "second") }, 0},
		{"same size, other content", func() { write(t, filepath.Join(dir, "a.txt"), "two") }, 1},
		{"staged", func() { run("add", "-A"); write(t, filepath.Join(dir, "b.txt"), "b") }, 2},
		{"removed", func() { run("add", "-A"); run("commit", "-qm", "third"); os.Remove(filepath.Join(dir, "a.txt")) }, 1},
	}
	for _, s := range steps {
		s.do()
		tree, err := git.Open(filepath.Join(dir, "sub/.."))
		if err != nil {
			t.Fatal(err)
		}
		if tree.Ref != "refs/heads/main" {
			t.Fatalf("ref = %q", tree.Ref)
		}
		got, err := tree.Uncommitted(t.Context())
		if err != nil || got != s.want {
			t.Errorf("%s: %d files differ, %v; want %d", s.name, got, err, s.want)
		}
	}
}

func TestChanged(t *testing.T) {
	dir, run := repo(t)
	write(t, filepath.Join(dir, "api/a"), "1")
	write(t, filepath.Join(dir, "web/b"), "1")
	run("add", "-A")
	run("commit", "-qm", "first")
	run("tag", "base")
	write(t, filepath.Join(dir, "api/a"), "2")
	run("mv", "web/b", "web/c")
	run("add", "-A")
	run("commit", "-qm", "second")
	tree, err := git.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tree.Changed(t.Context(), "base")
	if want := []string{"api/a", "web/b", "web/c"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("changed = %v, %v; want %v", got, err, want)
	}
	if _, err := tree.Changed(t.Context(), "nowhere"); err == nil {
		t.Fatal("an unknown base was accepted")
	}
}

func TestIgnored(t *testing.T) {
	dir, run := repo(t)
	for _, name := range []string{"a/tracked", "b/tracked", ".gitignore"} {
		write(t, filepath.Join(dir, name), "dist/\n*.log\n")
	}
	run("add", "-A")
	run("commit", "-qm", "first")
	for _, name := range []string{"a/dist/app.js", "a/x.log", "b/c/y.log"} {
		write(t, filepath.Join(dir, name), "x")
	}
	tree, err := git.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := tree.Uncommitted(t.Context()); n != 0 || err != nil {
		t.Fatalf("%d files differ, %v", n, err)
	}
	for at, want := range map[string][]string{
		".": {"a/dist/app.js", "a/x.log", "b/c/y.log"}, "a": {"a/dist/app.js", "a/x.log"}, "a/tracked": nil, "a/x.log": {"a/x.log"},
	} {
		if got, err := tree.Ignored(t.Context(), at); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", at, got, err, want)
		}
	}
	if _, err := tree.Ignored(t.Context(), "nowhere"); err == nil {
		t.Error("a directory that is not there has no ignored files")
	}
}

func TestFileOfTheCommit(t *testing.T) {
	dir, run := repo(t)
	write(t, filepath.Join(dir, "sub/.ci.yml"), "version: 1\r\n")
	run("add", "-A")
	run("commit", "-qm", "first")
	write(t, filepath.Join(dir, "sub/.ci.yml"), "changed")
	tree, err := git.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tree.File("sub/.ci.yml"); err != nil || string(got) != "version: 1\r\n" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := tree.File(".ci.yml"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestOriginWithoutCredentials(t *testing.T) {
	dir, run := repo(t)
	run("commit", "-qm", "first", "--allow-empty")
	origin := func() string {
		t.Helper()
		tree, err := git.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tree.Origin()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := origin(); got != "" {
		t.Errorf("no remote: %q", got)
	}
	run("remote", "add", "origin", "/srv/shop.git")
	for url, want := range map[string]string{
		"/srv/shop.git": "/srv/shop.git",
		"https://alice:hunter2@forge.example/shop.git":  "https://forge.example/shop.git",
		"https://token@forge.example:8443/shop.git":     "https://forge.example:8443/shop.git",
		"https://forge.example/shop.git?private=hunter": "https://forge.example/shop.git",
		"git@forge.example:shop.git":                    "git@forge.example:shop.git",
		"ssh://git:hunter2@forge.example/shop.git":      "ssh://git@forge.example/shop.git",
	} {
		run("remote", "set-url", "origin", url)
		if got := origin(); got != want {
			t.Errorf("%s became %s, want %s", url, got, want)
		}
	}
}

func TestTracked(t *testing.T) {
	dir, run := repo(t)
	for _, name := range []string{"a.txt", "web/run.sh", "web/src/b.txt", "web/new.sh", "website/c.txt"} {
		write(t, filepath.Join(dir, name), name)
	}
	run("add", "a.txt", "web/run.sh", "web/src", "website")
	run("update-index", "--chmod=+x", "web/run.sh") // as it is told on Windows
	run("commit", "-qm", "first")
	tree, err := git.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for below, want := range map[string]map[string]bool{
		".":   {"a.txt": false, "web/run.sh": true, "web/src/b.txt": false, "website/c.txt": false},
		"web": {"run.sh": true, "src/b.txt": false},
	} {
		if got, err := tree.Tracked(filepath.Join(dir, below)); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v", below, got, err)
		}
	}
}
