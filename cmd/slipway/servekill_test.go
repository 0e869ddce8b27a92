package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/ledger"
)

// phase is one in which a server is killed: from a moment that can be seen from
// outside, and how long it lasts, roughly.
type phase struct {
	name   string
	begins func(v *served, k *killing) bool
	within time.Duration
}

// killing is a run that is killed again and again.
type killing struct {
	t       *testing.T
	id      string // of its delivery
	before  string
	commit  string
	from    int // length of the server's log when this server started
	records int // attempts there were then
	told    chan toldStatus
}

// says tells whether this server's log has a text.
func (k *killing) says(v *served, text string) bool {
	f, err := os.Open(v.log)
	if err != nil {
		return false // it was never started
	}
	defer f.Close()
	said, _ := io.ReadAll(io.NewSectionReader(f, int64(k.from), 1<<30)) // what is there
	return strings.Contains(string(said), text)
}

// hears tells whether the forge is being told a state of the commit.
func (k *killing) hears(state string) bool {
	select {
	case s := <-k.told:
		return s.Commit == k.commit && s.State == state
	default:
		return false
	}
}

func (v *served) records() []string {
	all, _ := filepath.Glob(v.root + "/runs/*/lines.jsonl") // the pattern is well-formed
	slices.Sort(all)
	return all
}

// logs tells whether the log of this server's attempt has a text.
func (k *killing) logs(v *served, text string) bool {
	all := v.records()
	if len(all) <= k.records {
		return false
	}
	data, _ := os.ReadFile(all[len(all)-1]) // it may have no line yet
	return strings.Contains(string(data), text)
}

// phases are those of a push, in the order in which they come. Of those that come
// at the same time one is met by every second push, the other by the others.
var phases = [2][]phase{
	{
		{"webhook", func(*served, *killing) bool { return true }, 8 * time.Millisecond},
		{"queue", func(v *served, k *killing) bool { return k.says(v, "slipway serves") }, 10 * time.Millisecond},
		fetchPhase, buildPhase, testPhase,
		{"promotion", func(v *served, _ *killing) bool {
			_, err := os.Stat(filepath.Join(promotionsDir(v.root), "test.journal"))
			return err == nil
		}, 60 * time.Millisecond},
	},
	{
		{"first status", func(_ *served, k *killing) bool { return k.hears("pending") }, 5 * time.Millisecond},
		fetchPhase, buildPhase, testPhase,
		{"last status", func(_ *served, k *killing) bool { return k.hears("success") }, 5 * time.Millisecond},
	},
}

var (
	fetchPhase = phase{"fetch", func(v *served, k *killing) bool { return k.says(v, "run begins") }, 100 * time.Millisecond}
	buildPhase = phase{"build", func(v *served, k *killing) bool { return k.logs(v, "RUN echo") }, 300 * time.Millisecond}
	testPhase  = phase{"test", func(v *served, k *killing) bool { return k.logs(v, "test has begun") }, 300 * time.Millisecond}
)

// killsIn is how many kills two pushes meet.
var killsIn = len(phases[0]) + len(phases[1])

// TestServeKilled kills the server -9 in every phase from a webhook to the end of
// its promotion, one after the other for each push. Every accepted push is one
// run, which passes, is promoted by one commit, and of which the forge hears
// nothing twice but what a kill kept from being noted; the environment's file
// always has the old digest or the new one.
func TestServeKilled(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { serveKilled(t, "", 2*soak(1, 300/killsIn+1)) })
	t.Run("postgres", func(t *testing.T) { serveKilled(t, postgres(t), 2*soak(1, 30/killsIn+1)) })
}

func serveKilled(t *testing.T, database string, pushes int) {
	v := servedOptions{database: database, forge: true}.serve(t)
	v.write(t, ".ci.yml", `version: 1
images: {web: {build: ., tests: {unit: {command: "echo test has begun; sleep 0.3; cat /a.txt"}}}}
environments: [environments/test.yml]
`)
	v.write(t, "Dockerfile", "FROM example.com/base:1\nCOPY a.txt /a.txt\nRUN echo built; sleep 0.3\n")
	before := v.commit(t, "with phases")
	v.start(t)
	v.push(t, "warm", zeros, before) // the first fetches and builds everything
	v.until(t, before, "promoted", promoted)
	kills, slowest := map[string]int{}, time.Duration(0)
	for n := range pushes {
		old := v.runsInTest(t)
		commit := v.commit(t, fmt.Sprint("change ", n))
		hit, seen, took := v.killThrough(t, n, before, commit)
		slowest = max(slowest, took)
		r := v.until(t, commit, "promoted", promoted)
		if r.State != ledger.Passed {
			t.Fatalf("%s %s, promotion %+v\n%s", r.State, r.Reason, r.Promotion, v.said())
		}
		digest := recordOf(t, r).Images[0].Digest
		for _, s := range append(seen, v.runsInTest(t)) {
			if s != old && s != digest {
				t.Errorf("test ran %s, neither the old %s nor the new %s", s, old, digest)
			}
		}
		if got := v.runsInTest(t); got != digest || got == old {
			t.Errorf("test runs %s, the run built %s", got, digest)
		}
		v.toldOnce(t, commit, len(hit))
		for _, name := range hit {
			kills[name]++
		}
		before = commit
	}
	v.onceEach(t, pushes+1)
	total := 0
	for _, p := range slices.Concat(phases[0], phases[1]) {
		if kills[p.name] == 0 {
			t.Errorf("no kill met the phase %q: it is not found any more", p.name)
		}
	}
	for _, n := range kills {
		total += n
	}
	t.Logf("%d pushes, %d kills (%v), a run was taken up at most %s after a start", pushes, total, kills, slowest.Round(time.Millisecond))
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d\n%s", code, v.said())
	}
	v.nothingLeft(t, "after the kills")
}

// killThrough pushes once and kills the server in each phase in turn, starting it
// again each time. It gives the phases that were met, what ran in the environment
// after each kill, and the longest time from a start to the run being taken up.
func (v *served) killThrough(t *testing.T, n int, before, commit string) (hit, ran []string, slowest time.Duration) {
	k := &killing{t: t, id: fmt.Sprint("kill-", n), before: before, commit: commit, from: len(v.said()), records: len(v.records()), told: make(chan toldStatus, 10)}
	v.forge.when(func(s toldStatus) { k.told <- s })
	defer v.forge.when(nil)
	accepted := false
	for _, p := range phases[n%2] {
		answered := make(chan bool, 1)
		go func() {
			code := http.StatusAccepted
			if !accepted {
				code, _ = v.deliver(t, k.id, v.pushOf(before, commit))
			}
			answered <- code == http.StatusAccepted
		}()
		if v.awaits(k, p) {
			time.Sleep(rand.N(p.within))
			hit = append(hit, p.name)
		}
		_ = v.cmd.Process.Kill()
		accepted = <-answered || accepted
		_ = v.cmd.Wait() // "signal: killed" is what is wanted
		got := v.runsInTest(t)
		if !strings.HasPrefix(got, "sha256:") || len(got) != len("sha256:")+64 {
			t.Fatalf("test runs %q after a kill in %s", got, p.name)
		}
		ran = append(ran, got)
		k.from, k.records = len(v.said()), len(v.records())
		began := time.Now()
		v.start(t)
		slowest = max(slowest, v.takenUp(k, began))
	}
	if !accepted { // a forge, or a person there, delivers it again
		v.push(t, k.id, before, commit)
	}
	return hit, ran, slowest
}

// awaits waits for a phase; false: the run is past it.
func (v *served) awaits(k *killing, p phase) bool {
	past := time.Time{}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if p.begins(v, k) {
			return true
		}
		if past.IsZero() && k.says(v, "promotion tried") {
			past = time.Now()
		}
		if !past.IsZero() && time.Since(past) > time.Second {
			return false
		}
	}
	return false
}

// takenUp is how long after its start a server has the run again; 0: it had none
// to take up.
func (v *served) takenUp(k *killing, began time.Time) time.Duration {
	for time.Since(began) < time.Minute {
		if k.says(v, "run begins") {
			return time.Since(began)
		}
		waits := false
		for _, r := range v.runs(k.t) {
			waits = waits || r.Commit == k.commit && !r.State.Over()
		}
		if !waits {
			return 0
		}
		time.Sleep(5 * time.Millisecond)
	}
	k.t.Fatalf("a run was not taken up within a minute of the start\n%s", v.said())
	return 0
}

// toldOnce: what the forge was told of a commit is pending and then success, each
// once, and once more for each kill at the most; at the end it is success.
func (v *served) toldOnce(t *testing.T, commit string, kills int) {
	t.Helper()
	var states []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if states = v.forge.states(commit); slices.Contains(states, "success") {
			break
		}
	}
	if len(states) == 0 || states[len(states)-1] != "success" || len(states) > 2+kills {
		t.Errorf("the forge was told of %.12s: %v, with %d kills", commit, states, kills)
	}
	if i := slices.Index(states, "success"); i >= 0 && slices.Contains(states[i:], "pending") {
		t.Errorf("the forge was told of %.12s that it waits after it had passed: %v", commit, states)
	}
}

// onceEach: of so many pushes each has one run, which passed, and one commit in
// the environments' repository.
func (v *served) onceEach(t *testing.T, pushes int) {
	t.Helper()
	seen := map[string]int{}
	for _, r := range v.runs(t) {
		if seen[r.Commit]++; seen[r.Commit] > 1 || r.State != ledger.Passed {
			t.Errorf("run %s of %.12s is %s: %s (%d runs of that commit)", r.ID, r.Commit, r.State, r.Reason, seen[r.Commit])
		}
	}
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "git", "-C", filepath.Join(v.root, "environments.git"), "log", "--format=%(trailers:key=Slipway-Image,valueonly)", "main").Output()
	if err != nil {
		t.Fatal(err)
	}
	digests := map[string]int{}
	for _, line := range strings.Fields(string(out)) {
		if strings.HasPrefix(line, "sha256:") {
			digests[line]++
		}
	}
	commits := strings.Count(string(out), "web sha256:")
	if len(seen) != pushes || commits != pushes {
		t.Errorf("%d pushes gave %d runs and %d promotions\n%s", pushes, len(seen), commits, out)
	}
}
