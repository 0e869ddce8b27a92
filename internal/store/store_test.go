package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/store"
	"slipway/pipeline"
)

func open(t *testing.T) (*store.Store, string) {
	t.Helper()
	root := t.TempDir()
	s, err := store.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s, root
}

func TestRunsByName(t *testing.T) {
	s, _ := open(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	first, second := store.NewRunID(at), store.NewRunID(at.Add(time.Millisecond))
	for _, id := range []string{second, first} {
		if err := s.PutRun(store.Run{ID: id, State: pipeline.Passed}); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"last": second, first: first, second[len(second)-8:]: second} {
		if r, err := s.Run(name); err != nil || r.ID != want {
			t.Errorf("Run(%q) = %s, %v; want %s", name, r.ID, err, want)
		}
	}
	for _, name := range []string{"", "2026", "nothing"} {
		if r, err := s.Run(name); err == nil {
			t.Errorf("Run(%q) = %s; want an error", name, r.ID)
		}
	}
	for _, c := range []struct {
		keep   int
		before time.Time
		want   int
	}{{5, time.Time{}, 0}, {1, time.Time{}, 1}, {0, time.Time{}, 2}, {5, at, 0}, {5, at.Add(time.Second), 2}, {1, at.Add(-time.Hour), 1}} {
		if old, err := s.OldRuns(c.keep, c.before); len(old) != c.want || err != nil {
			t.Errorf("OldRuns(%d, %v) = %v, %v; want %d", c.keep, c.before, old, err, c.want)
		}
	}
	old, err := s.OldRuns(1, time.Time{})
	if err != nil || len(old) != 1 || old[0] != first {
		t.Fatalf("OldRuns(1) = %v, %v", old, err)
	}
	if err := s.DropRun(first); err != nil {
		t.Fatal(err)
	}
	runs, err := s.Runs()
	if err != nil || len(runs) != 1 || runs[0].ID != second {
		t.Fatalf("Runs = %v, %v", runs, err)
	}
}

func TestReadOnlyNeverWrites(t *testing.T) {
	root := filepath.Join(t.TempDir(), "missing")
	s := store.ReadOnly(root)
	if _, ok := s.Test(digest.FromString("x")); ok {
		t.Fatal("an empty store knows a test")
	}
	for name, write := range map[string]func() error{
		"run":   func() error { return s.PutRun(store.Run{ID: "x"}) },
		"test":  func() error { return s.PutTest(digest.FromString("x"), store.PassedTest{}) },
		"build": func() error { return s.PutBuild(digest.FromString("x"), store.Build{}, nil) },
		"prune": s.Pruned,
	} {
		if write() == nil {
			t.Errorf("%s: a read-only store wrote", name)
		}
	}
	if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the root was made: %v", err)
	}
}

func TestOnlyPassedTestsAreReused(t *testing.T) {
	s, _ := open(t)
	key := digest.FromString("key")
	for state, want := range map[pipeline.State]bool{pipeline.Passed: true, pipeline.Failed: false, pipeline.Error: false} {
		if err := s.PutTest(key, store.PassedTest{Run: "r", Test: store.Test{State: state}}); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Test(key); ok != want {
			t.Errorf("state %s: reused = %v", state, ok)
		}
	}
}

func TestDamagedRecordIsAbsent(t *testing.T) {
	s, root := open(t)
	key := digest.FromString("key")
	if err := s.PutBuild(key, store.Build{Run: "r"}, []digest.Digest{key}); err != nil {
		t.Fatal(err)
	}
	if !s.Built(key) {
		t.Fatal("a built step is unknown")
	}
	path := filepath.Join(root, "records/builds", key.Encoded()[:2], key.Encoded())
	if err := os.WriteFile(path, []byte(`{"Run":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, ok := s.Build(key); ok {
		t.Fatalf("half a record was believed: %+v", b)
	}
	if err := s.Pruned(); err != nil || s.Built(key) {
		t.Fatalf("after a prune the step still counts as built (%v)", err)
	}
}

func TestLockTellsWhoHoldsIt(t *testing.T) {
	root := t.TempDir()
	unlock, err := store.Lock(t.Context(), root, "slipway run pipeline", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("enough")
	_, err = store.Lock(ctx, root, "second", func(h store.Holder) {
		if h.PID != os.Getpid() || h.Command != "slipway run pipeline" {
			t.Errorf("holder = %+v", h)
		}
		cancel(stop)
	})
	if !errors.Is(err, stop) {
		t.Fatalf("waiting ended with %v", err)
	}
	unlock()
	unlock, err = store.Lock(t.Context(), root, "third", func(store.Holder) { t.Error("a free root was waited for") })
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
