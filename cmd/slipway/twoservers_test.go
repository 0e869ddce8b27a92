package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/internal/store"
)

// TestTwoServers: two servers with roots of their own share a ledger in PostgreSQL. Each
// takes deliveries of the same repository, some of them both at once; one is killed while
// it runs. Every run passes, in one attempt or in the one after the killed one.
func TestTwoServers(t *testing.T) {
	a := servedOptions{database: postgres(t)}.serve(t)
	a.write(t, ".ci.yml", `version: 1
images: {web: {build: ., tests: {unit: {command: "sleep 1; cat /a.txt", cache: false}}}}
`)
	commit := a.commit(t, "for all")
	b := a.twin(t)
	a.start(t)
	b.start(t)
	const deliveries = 40
	for n := range deliveries {
		if n == deliveries*3/4 {
			b.someOver(t, deliveries/4)
			a.killInARun(t)
		}
		b.deliverTo(t, n, commit, []*served{a, b})
	}
	runs := b.allOver(t, commit, deliveries)
	lost := b.onceOrAfterTheKill(t, runs, a)
	if lost == 0 {
		t.Error("the kill met no run")
	}

	a.start(t) // what it was at has been taken over: it finds nothing to do
	for _, r := range a.runs(t) {
		if r.State != ledger.Passed {
			t.Errorf("%s is %s after the other's start", r.ID, r.State)
		}
	}
	if again := b.onceOrAfterTheKill(t, a.runs(t), a); again != lost {
		t.Errorf("%d attempts are lost after the other's start, %d were before", again, lost)
	}
	at := map[bool]int{}
	for _, r := range runs {
		_, err := os.Stat(filepath.Join(a.root, "runs", r.Record))
		at[err == nil]++
	}
	t.Logf("%d runs, %d by the server that was killed, %d taken over from it", len(runs), at[true], lost)
	for _, v := range []*served{a, b} {
		if code := v.stop(t, syscall.SIGTERM); code != exitDone {
			t.Errorf("stopped with %d\n%s", code, v.said())
		}
	}
	a.nothingLeft(t, "after the servers")
	b.nothingLeft(t, "after the servers")
}

// twin makes another server on the same ledger. Without the key of that it refuses to serve.
func (v *served) twin(t *testing.T) *served {
	t.Helper()
	w := &served{place: newPlace(t), bare: v.bare, origin: v.origin, secret: v.secret}
	w.log = filepath.Join(filepath.Dir(w.root), "server.log")
	var err error
	if w.address, err = freeAddress(); err != nil {
		t.Fatal(err)
	}
	hook, err := url.Parse(v.hook)
	if err != nil {
		t.Fatal(err)
	}
	hook.Host = w.address
	w.hook = hook.String()
	database := ""
	for _, e := range v.env {
		if strings.HasPrefix(e, "SLIPWAY_DATABASE=") {
			database = e
		}
	}
	w.env = append(w.env, database, "SLIPWAY_ADDRESS="+w.address, "SLIPWAY_PUBLIC_URL=http://"+w.address, "SLIPWAY_GIT_LOCAL=true")
	cmd := w.slipway("serve")
	if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(out), "copy server/ledger.key") {
		t.Errorf("with a key of its own: %v\n%s", err, out)
	}
	key, err := os.ReadFile(filepath.Join(v.root, "server", "ledger.key"))
	if err == nil {
		err = os.WriteFile(filepath.Join(w.root, "server", "ledger.key"), key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.stop(t, syscall.SIGTERM) })
	return w
}

// someOver waits until so many runs have ended.
func (v *served) someOver(t *testing.T, n int) {
	t.Helper()
	over := 0
	for deadline := time.Now().Add(3 * time.Minute); over < n; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d runs are over, want %d\n%s", over, n, v.said())
		}
		over = 0
		for _, r := range v.runs(t) {
			if r.State.Over() {
				over++
			}
		}
	}
}

// killInARun kills the server once it has begun another run.
func (v *served) killInARun(t *testing.T) {
	t.Helper()
	begun := strings.Count(v.said(), "run begins")
	for deadline := time.Now().Add(time.Minute); strings.Count(v.said(), "run begins") == begun; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it takes no run\n%s", v.said())
		}
	}
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait() // "signal: killed" is what is wanted
}

// deliverTo delivers a push of its own branch to one of some servers, and every fourth to
// all of them at once. What is not answered is delivered again to this one.
func (v *served) deliverTo(t *testing.T, n int, commit string, all []*served) {
	t.Helper()
	push := v.pushOf(zeros, commit)
	push["ref"] = fmt.Sprint("refs/heads/b", n)
	v.git(t, "-C", v.bare, "update-ref", fmt.Sprint("refs/heads/b", n), commit)
	id := fmt.Sprint("d", n)
	to := []*served{all[rand.N(len(all))]}
	if n%4 == 0 {
		to = all
	}
	answers := make(chan int)
	for _, at := range to {
		go func() {
			code, _ := at.deliver(t, id, push)
			answers <- code
		}()
	}
	accepted := false
	for range to {
		code := <-answers
		accepted = accepted || code == http.StatusAccepted
		if code != http.StatusAccepted && code != 0 {
			t.Errorf("delivery %d: %d\n%s", n, code, v.said())
		}
	}
	if accepted {
		return
	}
	if code, said := v.deliver(t, id, push); code != http.StatusAccepted {
		t.Errorf("delivery %d again: %d %s", n, code, said)
	}
}

// onceOrAfterTheKill: each run has one attempt that ended, which passed, and whose record
// is in one root alone; before it none but the killed server's. It gives how many those are.
func (v *served) onceOrAfterTheKill(t *testing.T, runs []ledger.Run, killed *served) (lost int) {
	t.Helper()
	for _, r := range runs {
		var shown struct{ Tries []ledger.Attempt }
		if err := v.client(t).ask(t.Context(), http.MethodGet, "/api/v1/runs/"+r.ID, nil, &shown); err != nil {
			t.Fatal(err)
		}
		passed := 0
		for _, a := range shown.Tries {
			records := 0
			for _, root := range []string{v.root, killed.root} {
				if record, err := store.ReadOnly(root).Run(a.Record); err == nil && string(record.State) == string(ledger.Passed) {
					records++
				}
			}
			switch a.State {
			case ledger.Passed:
				passed++
				if records != 1 {
					t.Errorf("attempt %d of %s passed, and has %d records", a.N, r.ID, records)
				}
			case "lost":
				lost++
			default:
				t.Errorf("attempt %d of %s is %s: %s", a.N, r.ID, a.State, a.Reason)
			}
		}
		if r.State != ledger.Passed || passed != 1 || len(shown.Tries) > 2 {
			t.Errorf("%s %s: %s, %d attempts of which %d passed", r.ID, r.State, r.Reason, len(shown.Tries), passed)
		}
	}
	return lost
}
