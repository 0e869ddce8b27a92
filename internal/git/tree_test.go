package git_test

import (
	"errors"
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

func TestDirty(t *testing.T) {
	dir, run := repo(t)
	write(t, filepath.Join(dir, "a.txt"), "one")
	write(t, filepath.Join(dir, ".gitignore"), "ignored/\n")
	run("add", "-A")
	run("commit", "-qm", "first")
	steps := []struct {
		name string
		do   func()
		want bool
	}{
		{"as committed", func() {}, false},
		{"an ignored file", func() { write(t, filepath.Join(dir, "ignored/x"), "x") }, false},
		{"an untracked file", func() { write(t, filepath.Join(dir, "sub/new"), "x") }, true},
		{"the same, committed", func() { run("add", "-A"); run("commit", "-qm", "second") }, false},
		{"same size, other content", func() { write(t, filepath.Join(dir, "a.txt"), "two") }, true},
		{"staged", func() { run("add", "-A") }, true},
		{"removed", func() { run("commit", "-qm", "third"); os.Remove(filepath.Join(dir, "a.txt")) }, true},
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
		got, err := tree.Dirty(t.Context())
		if err != nil || got != s.want {
			t.Errorf("%s: dirty = %v, %v; want %v", s.name, got, err, s.want)
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
