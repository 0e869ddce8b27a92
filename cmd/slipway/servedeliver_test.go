package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
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

	// An image is imported for the next push, and a wrong one refused with its reason.
	tar := filepath.Join(filepath.Dir(v.root), "busybox.tar")
	if out := string(v.must(t, "images", "import", tar, "--name", "example.com/other:1")); !strings.HasPrefix(out, "imported root file system as example.com/other:1@sha256:") {
		t.Error(out)
	}
	if out, err := v.slipway("images", "import", v.log, "--name", "example.com/other:2").CombinedOutput(); err == nil || !strings.Contains(string(out), v.log) {
		t.Errorf("%v: %s", err, out)
	}
	v.onlyHere(t)
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

// onlyHere: what is for the root's socket is not on the network, whoever asks.
func (v *served) onlyHere(t *testing.T) {
	t.Helper()
	token := strings.TrimSpace(string(v.must(t, "tokens", "add", "boss", "--role", "admin")))
	for _, path := range []string{"/local/images-import", "/local/prepare", "/local/up"} {
		req, err := http.NewRequest(http.MethodPost, "http://"+v.address+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}
