package main

import (
	"database/sql"
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
	v.promoteAll(t, 3)
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

// promoteAll brings so many commits to the environment, one after the other.
func (v *served) promoteAll(t *testing.T, n int) (commits []string) {
	t.Helper()
	before, commit := zeros, v.git(t, "rev-parse", "HEAD")
	for range n {
		v.push(t, commit, before, commit)
		v.until(t, commit, "promoted", promoted)
		commits, before = append(commits, commit), commit
		commit = v.commit(t, "another")
	}
	return commits
}

// The ledger forgets a run of long ago when no proof in the root speaks of it any more;
// those stay that built what an environment runs, or would be brought back to.
func TestServeForgets(t *testing.T) {
	v := newServed(t)
	v.start(t)
	commits := v.promoteAll(t, 4)
	db, err := sql.Open("sqlite", filepath.Join(v.root, "server", "ledger.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`UPDATE runs SET created = created - $1, ended = ended - $1`, (366 * 24 * time.Hour).Milliseconds()); err != nil {
		t.Fatal(err)
	}
	forget := func(args ...string) (got server.Collected) {
		t.Helper()
		if err := json.Unmarshal(v.must(t, append([]string{"gc", "--json"}, args...)...), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := forget(); got.Forgotten != 0 {
		t.Errorf("while their proofs are there: %+v", got)
	}
	if got := forget("--keep-images", "0s", "--keep-ledger", "0s"); got.Forgotten != 0 || got.Images == 0 {
		t.Errorf("kept for ever: %+v", got)
	}
	if got := forget("--keep-images", "0s"); got.Forgotten != 2 {
		t.Errorf("%+v", got)
	}
	left := v.runs(t)
	if len(left) != 2 || left[0].Commit != commits[3] || left[1].Commit != commits[2] {
		t.Errorf("%+v", left)
	}
	if out, err := v.slipway("gc", "--keep-ledger", "24h").CombinedOutput(); err == nil || !strings.Contains(string(out), "2160 hours at least") {
		t.Errorf("%s, %v", out, err)
	}
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
