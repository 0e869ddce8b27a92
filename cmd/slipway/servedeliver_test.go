package main

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"slipway/internal/ledger"
	"slipway/internal/supervise"
)

// What a push has built runs on the server's own machine, though the server holds
// the root; and what a person promotes or takes back there does, too.
func TestServeDeliversToItsMachine(t *testing.T) {
	v := servedOptions{deliver: "deliver: {local: {restart: always, stop_grace_period: 1s}}\n"}.serve(t)
	v.start(t)
	t.Cleanup(func() { v.must(t, "supervise", "stop") })
	first := v.git(t, "rev-parse", "HEAD")
	v.push(t, "d1", zeros, first)
	one := recordOf(t, v.delivered(t, first)).Images[0].Digest
	second := v.commit(t, "another")
	v.push(t, "d2", first, second)
	two := recordOf(t, v.delivered(t, second)).Images[0].Digest

	runs := func(want string) {
		t.Helper()
		var all []struct {
			Containers []struct{ Digest, State string }
		}
		out := v.must(t, "ps", "--env", "test", "--json")
		if err := json.Unmarshal(out, &all); err != nil || len(all) != 1 || len(all[0].Containers) != 1 || all[0].Containers[0].Digest != want {
			t.Errorf("%v: %s, want %s", err, out, want)
		}
	}
	runs(two)
	v.must(t, "rollback", "test", "--yes")
	runs(one)
	// As if this machine had never run it: the server unpacks it for the command.
	v.must(t, "down", "--env", "test")
	if err := os.RemoveAll(supervise.LayersDir((&globals{root: v.root}).liveDir())); err != nil {
		t.Fatal(err)
	}
	v.must(t, "promote", "web@"+two, "--to", "test", "--yes")
	runs(two)
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d\n%s", code, v.said())
	}
	runs(two)
}

// delivered is the run of a commit once it is promoted and delivered.
func (v *served) delivered(t *testing.T, commit string) ledger.Run {
	t.Helper()
	r := v.until(t, commit, "promoted", promoted)
	if !strings.Contains(r.Promotion.Detail, "test: done") {
		t.Fatalf("%s: %s\n%s", r.State, r.Promotion.Detail, v.said())
	}
	return r
}
