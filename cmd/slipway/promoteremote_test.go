package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"slipway/internal/ledger"
	"slipway/promote"
)

// What a person does to environments through a server, from a machine that has
// nothing but a token and a key, is shown and done as on the server itself.
func TestPromoteOnServer(t *testing.T) {
	v := newServed(t)
	keys := t.TempDir()
	ann := filepath.Join(keys, "ann")
	v.must(t, "keys", "generate", "--out", ann)
	public, err := os.ReadFile(ann + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	v.write(t, "environments/ann.pub", "# email: ann@example.org\n"+string(public))
	v.write(t, "environments/prod.yml", "version: 1\nname: prod\nfrom: [test]\nimages: {web: {repository: prod/web}}\ngates: {branch: main, signers: [slipway.pub], tests: [web/unit], approvals: {from: [ann], not: author}}\n")
	v.write(t, ".ci.yml", strings.Replace(v.read(t, ".ci.yml"), "environments/test.yml]", "environments/test.yml, environments/prod.yml]", 1))
	commit := v.commit(t, "with prod")
	v.must(t, "env", "init", v.dir)
	v.start(t)
	v.push(t, "d1", zeros, commit)
	image := "web@" + recordOf(t, v.until(t, commit, "promoted", promoted)).Images[0].Digest
	admin, dev := v.asDeveloper(t, "sysadmin"), v.asDeveloper(t, "developer")

	// here and there: the same command on the server's root and from elsewhere.
	same := func(code int, args ...string) {
		t.Helper()
		here, there := v.slipway(args...), admin.slipway(args...)
		a, _ := here.Output() // the code is looked at
		b, _ := there.Output()
		if string(a) != string(b) || here.ProcessState.ExitCode() != code || there.ProcessState.ExitCode() != code {
			t.Errorf("%v, want %d\nhere, %d:\n%s\nthere, %d:\n%s", args, code, here.ProcessState.ExitCode(), a, there.ProcessState.ExitCode(), b)
		}
	}
	for _, args := range [][]string{{"status"}, {"status", "test", "--json"}, {"history", "test"}, {"history", "prod", "--json"}, {"diff", "test"}, {"diff", "test", "prod"}} {
		same(exitDone, append([]string{"env"}, args...)...)
	}
	same(exitUsage, "env", "history", "none")
	same(exitRefused, "promote", image, "--to", "prod", "--dry-run")
	same(exitRefused, "promote", image, "--to", "prod", "--yes")
	same(exitRefused, "promote", "web:latest", "--to", "prod")
	same(exitUsage, "promote", image, "--to", "none")

	var approved []promote.Assented
	if err := json.Unmarshal(dev.must(t, "approve", image, "--to", "prod", "--key", ann, "--reason", "looked at it", "--json"), &approved); err != nil || approved[0].Commit != commit {
		t.Fatalf("%v: %+v", err, approved)
	}
	same(exitDone, "promote", image, "--to", "prod", "--dry-run")
	if out, err := dev.slipway("promote", image, "--to", "prod", "--yes").CombinedOutput(); err == nil || !strings.Contains(string(out), "takes a sysadmin") {
		t.Errorf("a developer promotes: %s", out)
	}
	out := string(admin.must(t, "promote", image, "--to", "prod", "--yes"))
	if !strings.Contains(out, "done: prod runs it") {
		t.Errorf("promoted: %s", out)
	}
	if history := string(v.must(t, "env", "history", "prod")); !strings.Contains(history, "sysadmin") {
		t.Errorf("history: %s", history)
	}
	same(exitDone, "promote", image, "--to", "prod", "--dry-run")
	same(exitUsage, "rollback", "prod", "--yes") // nothing ran before
	var deeds struct{ Deeds []ledger.Deed }
	if err := v.client(t).ask(t.Context(), "GET", "/api/v1/audit", nil, &deeds); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"token developer approve prod", "token developer refused POST /api/v1/promotions", "token sysadmin promote prod"} {
		if !slices.ContainsFunc(deeds.Deeds, func(d ledger.Deed) bool { return d.Actor+" "+d.Action+" "+d.Object == want }) {
			t.Errorf("%q is not among %+v", want, deeds.Deeds)
		}
	}
	v.rollsBack(t, admin, image)
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d\n%s", code, v.said())
	}
}

// rollsBack: another image comes to test by a push, and goes again.
func (v *served) rollsBack(t *testing.T, admin place, first string) {
	before := v.git(t, "rev-parse", "HEAD")
	commit := v.commit(t, "another")
	v.push(t, "d2", before, commit)
	v.until(t, commit, "promoted", promoted)
	if out := string(admin.must(t, "rollback", "test", "--yes")); !strings.Contains(out, "rollback") || !strings.Contains(out, "done: test runs it") {
		t.Errorf("rolled back: %s", out)
	}
	if got := "web@" + v.runsInTest(t); got != first {
		t.Errorf("test runs %s, want %s", got, first)
	}
}
