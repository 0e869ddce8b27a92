package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/ledger"
)

// TestServeLostWebhook: a push that no webhook tells of is found, run and promoted,
// and makes no second run when the webhook comes after all. What was there before
// the server's first look makes none.
func TestServeLostWebhook(t *testing.T) {
	v := newServed(t)
	v.env = append(v.env, "SLIPWAY_RECONCILE_EVERY=300ms")
	first := v.git(t, "rev-parse", "HEAD")
	v.git(t, "push", "-q", "origin", "HEAD:refs/heads/old")
	v.start(t)
	v.seen(t, first)

	second := v.commit(t, "nobody tells of this")
	run := v.until(t, second, "promoted", promoted)
	if run.Kind != "push" || run.Before != first || run.Attempts != 1 {
		t.Errorf("the run that was found: %+v", run)
	}
	v.push(t, "late", first, second)
	v.git(t, "push", "-q", "origin", "HEAD:refs/heads/new")
	v.until(t, second, "of the new branch", func(r ledger.Run) bool { return r.Ref == "refs/heads/new" && r.State.Over() })
	if all := v.runs(t); len(all) != 2 {
		t.Errorf("runs: %+v", all)
	}

	v.stop(t, syscall.SIGTERM) // what is pushed while no server runs is found at its next start
	third := v.commit(t, "nobody listens")
	v.start(t)
	v.until(t, third, "promoted", promoted)
	if all := v.runs(t); len(all) != 3 {
		t.Errorf("runs: %+v", all)
	}
}

// seen waits until the server has looked.
func (v *served) seen(t *testing.T, commit string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		files, _ := filepath.Glob(v.root + "/server/seen/*.json") // the pattern is well-formed
		for _, f := range files {
			if data, err := os.ReadFile(f); err == nil && strings.Contains(string(data), commit) {
				return
			}
		}
	}
	t.Fatalf("the server never looked\n%s", v.said())
}
