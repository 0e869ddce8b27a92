package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"slipway/internal/ledger"
	"slipway/internal/store"
	"slipway/pipeline"
)

// setSecret gives the runs of the repository another value.
func (v *served) setSecret(t *testing.T, name, value string) {
	t.Helper()
	cmd := v.slipway("secrets", "set", name, "--repo", "example/web")
	cmd.Stdin = strings.NewReader(value)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
}

// again reruns a run, and gives its next record.
func (v *served) again(t *testing.T, r ledger.Run, flags ...string) (ledger.Run, store.Run) {
	t.Helper()
	v.must(t, append([]string{"rerun", r.ID}, flags...)...)
	next := v.until(t, r.Commit, "over again", func(n ledger.Run) bool { return n.State.Over() && n.Attempts > r.Attempts })
	if len(next.Result) == 0 {
		return next, store.Run{}
	}
	return next, recordOf(t, next)
}

// A run is tried again as a whole, from what failed, or on the same images,
// whatever its bases have come to be.
func TestRerunOnServer(t *testing.T) {
	v := newServed(t)
	v.write(t, ".ci.yml", `version: 1
images:
  web:
    build: .
    tests:
      good: {command: "cat /a.txt", cache: false}
      unit: {command: "test $(cat /run/secrets/SWITCH) = switched-on", secrets: [SWITCH]}
      after: {command: "cat /a.txt", needs: [unit], cache: false}
environments: [environments/test.yml]
`)
	commit := v.commit(t, "three tests")
	v.setSecret(t, "SWITCH", "switched-off")
	v.start(t)
	v.push(t, "d1", zeros, commit)
	run := v.until(t, commit, "over", func(r ledger.Run) bool { return r.State.Over() })
	first := recordOf(t, run)
	if tests := testsOf(first); tests["web/good"].State != pipeline.Passed || tests["web/unit"].State != pipeline.Failed || tests["web/after"].State != pipeline.Skipped {
		t.Fatalf("%+v", first)
	}

	v.setSecret(t, "SWITCH", "switched-on")
	run, second := v.again(t, run, "--from-failed")
	tests := testsOf(second)
	if run.State != ledger.Passed || tests["web/good"].ReusedFrom != first.ID || tests["web/unit"].ReusedFrom != "" || tests["web/after"].State != pipeline.Passed || second.Unsigned != "" {
		t.Errorf("from what failed: %s %s: %+v", run.State, run.Reason, second)
	}
	if was := testsOf(first)["web/good"].Attestation; was == "" || tests["web/good"].Attestation != was {
		t.Errorf("what passed is signed as %q, was %q", tests["web/good"].Attestation, was)
	}
	run = v.until(t, commit, "promoted", promoted)
	if !strings.Contains(run.Promotion.Detail, "test: done") {
		t.Errorf("promotion: %+v", run.Promotion)
	}

	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Fatalf("stopped with %d\n%s", code, v.said())
	}
	v.moveBase(t)
	v.start(t)
	run, third := v.again(t, run, "--same-plan")
	tests = testsOf(third)
	if run.State != ledger.Passed || third.Images[0].Digest != first.Images[0].Digest || tests["web/good"].ReusedFrom != "" || third.Unsigned != "" {
		t.Errorf("the same plan: %s %s: %+v", run.State, run.Reason, third)
	}
	run, fourth := v.again(t, run)
	if run.State != ledger.Passed || fourth.Images[0].Digest == first.Images[0].Digest {
		t.Errorf("as a whole, on a newer base: %s %s: %+v", run.State, run.Reason, fourth)
	}
	if out, err := v.slipway("rerun", fourth.ID, "--same-plan").CombinedOutput(); err == nil || !strings.Contains(string(out), "runs of a server") {
		t.Errorf("a run of the root: %v %s", err, out)
	}
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d\n%s", code, v.said())
	}
	v.nothingLeft(t, "after the reruns")
}

// moveBase lets the base's name stand for another image.
func (v *served) moveBase(t *testing.T) {
	t.Helper()
	tar := filepath.Join(filepath.Dir(v.root), "busybox.tar")
	more := filepath.Join(t.TempDir(), "newer")
	script := `set -e; echo newer > "$1"; tar -rf "$0" -C "$(dirname "$1")" newer`
	if out, err := exec.Command("sh", "-c", script, tar, more).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	v.must(t, "images", "import", tar, "--name", "example.com/base:1")
}
