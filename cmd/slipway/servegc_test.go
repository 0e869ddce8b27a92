package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/internal/store"
)

// Space is freed in a root that is served: old runs lose their logs and say so, what
// an environment runs stays, and the next push reuses nothing that is gone.
func TestServeGC(t *testing.T) {
	v := newServed(t)
	v.start(t)
	over := func(r ledger.Run) bool { return r.State.Over() }
	before, commits := zeros, []string{v.git(t, "rev-parse", "HEAD")}
	for n := range 3 {
		if n > 0 {
			commits = append(commits, v.commit(t, "another"))
		}
		v.push(t, commits[n], before, commits[n])
		v.until(t, commits[n], "promoted", promoted)
		before = commits[n]
	}
	runs := v.runs(t) // the newest first
	gone := filepath.Join(v.root, "mirrors", "gone")
	if err := os.Mkdir(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	var got server.Collected
	if err := json.Unmarshal(v.must(t, "gc", "--keep-runs", "1", "--all", "--json"), &got); err != nil {
		t.Fatal(err)
	}
	if got.Runs != 2 || got.CacheBytes == 0 || got.Mirrors != 1 || got.Images != 0 {
		t.Errorf("%+v\n%s", got, v.said())
	}
	if _, err := os.Stat(gone); !os.IsNotExist(err) {
		t.Errorf("the mirror of no repository: %v", err)
	}
	if out := string(v.must(t, "logs", runs[0].ID)); !strings.Contains(out, "text 3") {
		t.Errorf("the log that is kept: %s", out)
	}
	if out := string(v.must(t, "logs", runs[2].ID)); !strings.Contains(out, "removed by retention") || strings.Contains(out, "text 1") {
		t.Errorf("the log that went: %s", out)
	}
	if _, err := os.Stat(filepath.Join(v.root, "runs", runs[2].Record)); !os.IsNotExist(err) {
		t.Errorf("its files: %v", err)
	}
	if r, err := v.client(t).run(t.Context(), runs[2].ID); err != nil || r.State != ledger.Passed || len(r.Result) == 0 {
		t.Errorf("the run itself: %+v, %v", r, err)
	}
	running := v.runsInTest(t)
	v.must(t, "rerun", runs[0].ID) // everything is built and tested from nothing
	again := v.until(t, runs[0].Commit, "run again", func(r ledger.Run) bool { return r.Attempts == 2 && over(r) })
	if again.State != ledger.Passed || recordOf(t, again).Images[0].Digest != running {
		t.Errorf("%s %s: %s", again.State, again.Reason, again.Result)
	}
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d\n%s", code, v.said())
	}
	// Without a server the command does it itself, and the ledger hears of it all the same.
	v.must(t, "gc", "--keep-runs", "0")
	v.start(t)
	if out := string(v.must(t, "logs", runs[0].ID)); !strings.Contains(out, "removed by retention") {
		t.Errorf("without a server: %s", out)
	}
	v.stop(t, syscall.SIGTERM)
	v.nothingLeft(t, "after the server")
}

// A run whose failed test is kept stays with it: its sandbox has files of the run mounted.
func TestKeptRunsAreNotOld(t *testing.T) {
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for n := range 3 {
		ids = append(ids, store.NewRunID(time.Now().Add(time.Duration(n)*time.Second)))
		if err := s.PutRun(store.Run{ID: ids[n]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutKept(store.Kept{Name: keptName(ids[1], "web/unit")}); err != nil {
		t.Fatal(err)
	}
	if n, err := dropRuns(t.Context(), s, server.Retention{}, nil); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if left, err := s.Runs(); err != nil || len(left) != 1 || left[0].ID != ids[1] {
		t.Errorf("%+v, %v", left, err)
	}
}
