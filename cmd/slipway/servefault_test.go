package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/git"
	"slipway/internal/ledger"
	"slipway/internal/need"
	"slipway/internal/server"
	"slipway/internal/volume"
)

// smallDisk makes a directory that is an ext4 file system of so many bytes.
func smallDisk(t *testing.T, dir string, size int64) {
	t.Helper()
	image := dir + ".img"
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		var out []byte
		err := errors.New("not tried")
		for range 200 { // other programs copy mount namespaces all the time, and hold it with theirs
			if out, err = exec.Command("umount", dir).CombinedOutput(); err == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Errorf("%v\n%s", err, out)
	})
}

// fill takes all the room that the root has but for so many bytes, and gives the
// means to free it.
func (v *served) fill(t *testing.T, but int64) (free func()) {
	t.Helper()
	path := filepath.Join(v.root, "filling")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := int64(64 << 20); chunk >= 512; chunk /= 2 {
		for err = nil; err == nil; {
			info, _ := f.Stat() // of a file that is open
			err = unix.Fallocate(int(f.Fd()), 0, info.Size(), chunk)
		}
	}
	if info, err := f.Stat(); err != nil || f.Truncate(info.Size()-but) != nil {
		t.Fatal("the disk cannot be filled: ", err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestServeFullDisk: on a full disk webhooks are refused, runs end as an error that
// says so, and nothing that was accepted is lost. Room on the disk is all that it
// takes to go on.
func TestServeFullDisk(t *testing.T) {
	v := servedOptions{disk: 1 << 30}.serve(t)
	v.start(t)
	first := v.git(t, "rev-parse", "HEAD")
	v.push(t, "first", zeros, first)
	v.until(t, first, "promoted", promoted)
	commit := v.commit(t, "on a full disk")
	free := v.fill(t, 0)
	var taken []string // refs
	refused := ""
	for n := 0; refused == "" && n < 1000; n++ {
		ref := fmt.Sprint("refs/heads/full-", n)
		v.git(t, "push", "-q", v.bare, commit+":"+ref)
		push := v.pushOf(zeros, commit)
		push["ref"] = ref
		switch code, said := v.deliver(t, ref, push); code {
		case http.StatusAccepted:
			taken = append(taken, ref)
		case http.StatusServiceUnavailable:
			refused = ref
		default:
			t.Fatalf("on a full disk: %d %s", code, said)
		}
	}
	if refused == "" {
		t.Fatal("no webhook was refused on a full disk")
	}
	if pid := v.cmd.Process; pid.Signal(unix.Signal(0)) != nil {
		t.Fatalf("the server has ended\n%s", v.said())
	}
	free()
	push := v.pushOf(zeros, commit)
	push["ref"] = refused
	if code, said := v.deliver(t, refused, push); code != http.StatusAccepted {
		t.Fatalf("with room again: %d %s", code, said)
	}
	taken = append(taken, refused)
	states := v.allOver(t, commit, len(taken))
	for _, r := range states {
		if r.State != ledger.Passed && (r.State != ledger.Broken || !strings.Contains(r.Reason, "no space left on device")) {
			t.Errorf("%s %s: %s", r.Ref, r.State, r.Reason)
		}
		if r.State == ledger.Broken {
			v.must(t, "rerun", r.ID)
		}
	}
	for _, r := range v.allOver(t, commit, len(taken)) {
		if r.State != ledger.Passed || !slices.Contains(taken, r.Ref) {
			t.Errorf("after the disk had room: %s %s: %s", r.Ref, r.State, r.Reason)
		}
	}
	broken := len(slices.DeleteFunc(states, func(r ledger.Run) bool { return r.State == ledger.Passed }))
	t.Logf("%d webhooks accepted, of their runs %d ended for want of room", len(taken), broken)

	v.fillsUp(t, first)
}

// fillsUp: a run that takes the last room is an error that says so, and its next
// attempt passes. What was running meanwhile waits with its end, or says so too.
func (v *served) fillsUp(t *testing.T, before string) {
	t.Helper()
	v.write(t, ".ci.yml", "version: 1\nimages: {web: {build: ., tests: {unit: {command: \"echo test has begun; sleep 2\"}}}}\n")
	commit := v.commit(t, "in the middle")
	v.push(t, "middle", before, commit)
	v.until(t, commit, "under test", func(r ledger.Run) bool {
		return strings.Contains(string(v.must(t, "logs", r.ID)), "| test has begun")
	})
	free := v.fill(t, 0)
	var r ledger.Run
	for deadline := time.Now().Add(time.Minute); !r.State.Over() && !strings.Contains(v.said(), "the ledger cannot be read or written"); time.Sleep(50 * time.Millisecond) {
		for _, all := range v.runs(t) {
			if all.Commit == commit {
				r = all
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the run goes on on a full disk\n%s", v.said())
		}
	}
	free()
	r = v.until(t, commit, "over", func(r ledger.Run) bool { return r.State.Over() })
	if r.State != ledger.Passed && (r.State != ledger.Broken || !strings.Contains(r.Reason, "no space left on device")) { // by what came first
		t.Errorf("%s %s at attempt %d", r.State, r.Reason, r.Attempts)
	}

	large := make([]byte, 40<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(large) // never fails
	v.write(t, "large", string(large))
	second := v.commit(t, "large")
	free = v.fill(t, 16<<20)
	v.push(t, "large", commit, second)
	r = v.until(t, second, "over", func(r ledger.Run) bool { return r.State.Over() })
	if r.State != ledger.Broken || !strings.Contains(r.Reason, "no space left on device") {
		t.Errorf("%s %s", r.State, r.Reason)
	}
	free()
	v.must(t, "rerun", r.ID)
	r = v.until(t, second, "over again", func(r ledger.Run) bool { return r.State.Over() && r.Attempts == 2 })
	if r.State != ledger.Passed {
		t.Errorf("%s %s", r.State, r.Reason)
	}
}

// TestServeBrokenVolumes: where the file system that volumes are in has had an error,
// the server says so and ends, and its next start mends that.
func TestServeBrokenVolumes(t *testing.T) {
	_, missing := exec.LookPath("mkfs.xfs")
	need.Have(t, "xfs", missing)
	v := newServed(t)
	made, err := volume.Open(t.Context(), volume.Options{Root: v.root, Backend: volume.XFSLoop})
	if err != nil || made.Close() != nil {
		t.Fatal(err)
	}
	v.write(t, ".ci.yml", "version: 1\nvolumes: {rows: {from: ./seed}}\n"+
		"images: {web: {build: ., tests: {unit: {command: \"cat /a.txt; echo two > /rows/two\", volumes: [\"rows:/rows\"]}}}}\n")
	v.write(t, "seed/one", "1\n")
	first := v.commit(t, "volumes")
	v.start(t)
	v.push(t, "first", zeros, first)
	if r := v.until(t, first, "over", func(r ledger.Run) bool { return r.State.Over() }); r.State != ledger.Passed {
		t.Fatalf("%s %s\n%s", r.State, r.Reason, v.must(t, "logs", r.ID))
	}
	data, err := os.Open(filepath.Join(v.root, "volumes", "data"))
	if err != nil {
		t.Fatal(err)
	}
	const shutdown = 0x8004587d // xfs_fsops.h: XFS_IOC_GOINGDOWN
	err = unix.IoctlSetPointerInt(int(data.Fd()), shutdown, 1)
	if err := errors.Join(err, data.Close()); err != nil {
		t.Fatal(err)
	}
	second := v.commit(t, "another")
	v.push(t, "second", first, second)
	_ = v.cmd.Wait() // the code says how
	if said := v.said(); v.cmd.ProcessState.Success() || !strings.Contains(said, "had an error") || !strings.Contains(said, "next start") {
		t.Fatalf("%v\n%s", v.cmd.ProcessState, said)
	}
	v.start(t)
	r := v.until(t, second, "over", func(r ledger.Run) bool { return r.State.Over() })
	if r.State != ledger.Broken || !strings.Contains(r.Reason, "next start") {
		t.Errorf("%s %s", r.State, r.Reason)
	}
	v.must(t, "rerun", r.ID)
	r = v.until(t, second, "over again", func(r ledger.Run) bool { return r.State.Over() && r.Attempts == 2 })
	if r.State != ledger.Passed {
		t.Errorf("%s %s", r.State, r.Reason)
	}
}

// allOver waits until a commit has so many runs and all have ended.
func (v *served) allOver(t *testing.T, commit string, n int) []ledger.Run {
	t.Helper()
	var found []ledger.Run
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		over := 0
		found = nil
		for _, r := range v.runs(t) {
			if r.Commit == commit {
				found = append(found, r)
				if r.State.Over() {
					over++
				}
			}
		}
		if over == n && len(found) == n {
			return found
		}
	}
	t.Fatalf("%d runs, want %d that have ended: %+v\n%s", len(found), n, found, v.said())
	return nil
}

// TestServeForgeAway: a run whose git server is away waits for it in the queue, and
// says so; its place is another's meanwhile. One that refuses the credentials is not
// asked again.
func TestServeForgeAway(t *testing.T) {
	v := servedOptions{forge: true}.serve(t)
	v.env = append(v.env, "SLIPWAY_RUNS=1")
	other := v.beside(t)
	v.start(t)
	first := v.git(t, "rev-parse", "HEAD")
	v.forge.down()
	v.push(t, "away", zeros, first)
	waits := func(r ledger.Run) bool {
		return strings.Contains(string(v.must(t, "logs", r.ID)), "slipway asks again in 2s")
	}
	r := v.until(t, first, "asked for again", waits)
	v.git(t, "checkout", "-q", "-b", "beside")
	beside := v.commit(t, "beside it")
	v.git(t, "checkout", "-q", "main")
	push := other.pushOf(zeros, beside)
	push["ref"], push["repository"] = "refs/heads/beside", "example/other"
	if code, said := other.deliver(t, "other", push); code != http.StatusAccepted {
		t.Fatalf("%d %s", code, said)
	}
	if r := v.until(t, beside, "over", func(r ledger.Run) bool { return r.State.Over() }); r.State != ledger.Passed {
		t.Errorf("beside it: %s %s", r.State, r.Reason)
	}
	if r, err := v.client(t).run(t.Context(), r.ID); err != nil || r.State.Over() {
		t.Errorf("%s %s, %v", r.State, r.Reason, err)
	}
	v.forge.up(t)
	if r = v.until(t, first, "promoted", promoted); r.State != ledger.Passed || r.Attempts < 3 {
		t.Errorf("%s %s at attempt %d", r.State, r.Reason, r.Attempts)
	}
	v.toldOnce(t, first, 2) // what was told while it was away comes later

	second := v.commit(t, "no entry")
	v.forge.deny.Store(true)
	v.push(t, "denied", first, second)
	r = v.until(t, second, "over", func(r ledger.Run) bool { return r.State.Over() })
	if log := string(v.must(t, "logs", r.ID)); r.State != ledger.Broken || !strings.Contains(r.Reason, "give credentials") || strings.Contains(log, "asks again") {
		t.Errorf("%s %s\n%s", r.State, r.Reason, log)
	}
	v.forge.deny.Store(false)
	v.must(t, "rerun", r.ID)
	v.until(t, second, "promoted", promoted)
}

// TestWhoIsAway: a git server that answers nobody is told apart from one that answers
// this question badly, and from one that has answered it.
func TestWhoIsAway(t *testing.T) {
	for _, c := range []struct {
		code      int // 0: nobody is there
		away, all bool
	}{
		{0, true, true},
		{http.StatusBadGateway, true, false},
		{http.StatusUnauthorized, false, false},
	} {
		forge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(c.code) }))
		if c.code == 0 {
			forge.Close()
		}
		remote := git.Remote{URL: forge.URL + "/example/web.git", Policy: git.Policy{Plain: true}}
		_, err := fetchCommit(t.Context(), git.NewMirror(t.TempDir(), git.Limits{}), remote, ledger.Run{Ref: "refs/heads/main"}, t.TempDir())
		forge.Close()
		var away *server.Away
		if is := errors.As(err, &away); err == nil || is != c.away || is && away.All != c.all {
			t.Errorf("%d: %v, away: %v, %+v", c.code, err, is, away)
		}
	}
}

// beside registers the repository once more, under another name and as a directory of
// this machine, and gives what delivers to that.
func (v *served) beside(t *testing.T) *served {
	t.Helper()
	other := *v
	other.forge = nil
	var added struct{ Hook, Secret string }
	if err := json.Unmarshal(v.must(t, "repos", "add", "--name", "example/other", "--json", "--forge", "generic", "file://"+v.bare), &added); err != nil {
		t.Fatal(err)
	}
	other.hook, other.secret = added.Hook, []byte(added.Secret)
	return &other
}

// TestServeRegistryAway: a promotion to a registry that is away is tried again, while
// the run counts as what it is; the registry's return is all that it takes.
func TestServeRegistryAway(t *testing.T) {
	need.Tool(t, "docker-registry")
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	v := servedOptions{registry: address}.serve(t)
	config := filepath.Join(filepath.Dir(v.root), "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", filepath.Join(filepath.Dir(v.root), "registry"), address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	up := func() (down func()) {
		cmd := exec.Command("docker-registry", "serve", config)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := answers("http://" + address + "/v2/"); err != nil {
			t.Fatal(err)
		}
		return func() {
			_ = cmd.Process.Kill() // in the midst of things, as a machine that fails
			_ = cmd.Wait()
		}
	}
	v.start(t)
	before := zeros
	for n := range 2 { // away from the start, and then away after it was there
		commit := v.commit(t, fmt.Sprint("registry ", n))
		v.push(t, fmt.Sprint("d", n), before, commit)
		r := v.until(t, commit, "promoted in vain", func(r ledger.Run) bool {
			return r.Promotion != nil && r.Promotion.Tries > 0 && r.Promotion.Detail != ""
		})
		if r.State != ledger.Passed || r.Promotion.State == ledger.PromotionDone || !strings.Contains(r.Promotion.Detail, "refused") {
			t.Errorf("%s %s, promotion %+v", r.State, r.Reason, r.Promotion)
		}
		down := up()
		r = v.until(t, commit, "promoted", promoted)
		digest := recordOf(t, r).Images[0].Digest
		if got := v.runsInTest(t); got != digest || !strings.Contains(r.Promotion.Detail, "test: done") {
			t.Errorf("test runs %s, the run built %s, promotion %+v", got, digest, r.Promotion)
		}
		req, err := http.NewRequest(http.MethodGet, "http://"+address+"/v2/example/web/manifests/"+digest, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json") // else it looks for Docker's own
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("the registry has no %s: %s", digest, resp.Status)
		}
		down()
		before = commit
	}
}
