package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/engine"
	"slipway/internal/ledger"
	"slipway/internal/store"
	"slipway/internal/upload"
	"slipway/pipeline"
)

// asDeveloper gives the environment of somebody with a token elsewhere: another
// root, and no way to the server but its address.
func (v *served) asDeveloper(t *testing.T, role string) place {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, v.must(t, "tokens", "add", role, "--role", role), 0o600); err != nil {
		t.Fatal(err)
	}
	p := v.place
	p.root = filepath.Join(t.TempDir(), "root")
	p.env = append(slices.Clone(p.env), "SLIPWAY_ROOT="+p.root, "SLIPWAY_SERVER=http://"+v.address, "SLIPWAY_SERVER_TOKEN="+token)
	return p
}

// remotely runs the pipeline of a directory on the server.
func (p place) remotely(t *testing.T, dir string, args ...string) (run store.Run, said string, code int) {
	t.Helper()
	cmd := p.slipway(append([]string{"run", "pipeline", dir, "--json"}, args...)...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, _ := cmd.Output() // the code is looked at
	if err := json.Unmarshal(out, &run); err != nil {
		t.Fatalf("not a run: %v\n%s%s", err, out, errs.String())
	}
	return run, errs.String(), cmd.ProcessState.ExitCode()
}

// A directory that is uploaded gives what it gives on a laptop: the same plan and
// the same image, with what git does not know and without what is ignored.
func TestRunPipelineOnServer(t *testing.T) {
	v := newServed(t)
	v.write(t, ".ci.yml", `version: 1
images:
  web:
    build: {context: app, additional_contexts: {more: more}}
    services: [side]
    tests:
      unit: {command: "cat /app/a.txt /in/fixture; test ! -e /app/big; ls -l /app"}
services:
  side: {image: "image:web", command: [sleep, "100"], env_file: [conf/env]}
environments: [environments/test.yml]
`)
	v.write(t, "app/Dockerfile", "FROM example.com/base:1\nCOPY . /app\nCOPY --from=more / /more\n")
	v.write(t, "app/.dockerignore", "big\n*.log\n!keep.log\n")
	for name, text := range map[string]string{"app/a.txt": "text\n", "app/big": "big", "app/x.log": "x", "app/keep.log": "keep", "more/m": "m", "conf/env": "A=1\n", "fixtures/fixture": "fixture\n"} {
		v.write(t, name, text)
	}
	v.write(t, ".ci.yml", strings.Replace(v.read(t, ".ci.yml"), "command: \"cat", "volumes: [\"./fixtures:/in:ro\"], command: \"cat", 1))
	v.commit(t, "clean")
	v.write(t, "app/new.txt", "not committed\n")
	if err := os.Chmod(filepath.Join(v.dir, "app/new.txt"), 0o751); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.txt", filepath.Join(v.dir, "app/link")); err != nil {
		t.Fatal(err)
	}
	laptop := newPlace(t)
	laptop.must(t, "images", "import", filepath.Join(filepath.Dir(v.root), "busybox.tar"), "--name", "example.com/base:1")
	laptop.dir = v.dir
	local := laptop.run(t)
	v.start(t)
	dev := v.asDeveloper(t, "developer")
	run, said, code := dev.remotely(t, v.dir)
	if run.State != pipeline.Passed || code != exitDone {
		t.Fatalf("%s %s, exit code %d\n%s\n%s", run.State, run.Reason, code, said, v.said())
	}
	if run.Plan != local.Plan || run.Images[0].Digest != local.Images[0].Digest || run.Commit != local.Commit || !run.Dirty {
		t.Errorf("here  %s of plan %s\nthere %s of plan %s\n%+v", local.Images[0].Digest, local.Plan, run.Images[0].Digest, run.Plan, run)
	}
	if !strings.Contains(said, "web/unit | text") || !strings.Contains(said, "web/unit | fixture") || !strings.Contains(run.Unsigned, "push the commit") {
		t.Errorf("it said:\n%s\nunsigned: %q", said, run.Unsigned)
	}
	var packed []os.DirEntry
	if packed, _ = os.ReadDir(filepath.Join(v.root, "uploads")); len(packed) != 1 {
		t.Errorf("uploads: %v", packed)
	}
	t.Run("fails", func(t *testing.T) { v.failsRemotely(t, dev) })
	t.Run("refused", func(t *testing.T) { v.refusesUploads(t, dev) })
	t.Run("interrupted", func(t *testing.T) { v.interruptsRemotely(t, dev, "token developer") })
	t.Run("dry run", func(t *testing.T) { v.foretells(t, dev, run) })
	t.Run("over the socket", func(t *testing.T) {
		again, said, code := v.remotely(t, v.dir)
		if again.State != pipeline.Passed || code != exitDone || again.Images[0].Digest != run.Images[0].Digest || !strings.Contains(said, "on the server of "+v.root) {
			t.Errorf("%s %s, exit code %d\n%s", again.State, again.Reason, code, said)
		}
		v.interruptsRemotely(t, v.place, "user 0 of this machine")
	})
	t.Run("killed", func(t *testing.T) { v.uploadOutlivesKill(t, dev) })
	t.Run("gone", func(t *testing.T) { v.leavesGoneServer(t, v.place) })
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d\n%s", code, v.said())
	}
	v.nothingLeft(t, "after the uploads")
}

// What git keeps is no part of a build, and not uploaded for one.
func TestNoGitIsUploaded(t *testing.T) {
	dir := t.TempDir()
	p := place{dir: dir}
	p.write(t, ".git/objects/x", "history")
	p.write(t, "Dockerfile", "FROM scratch\nCOPY . /\n")
	p.write(t, ".dockerignore", "!.git\n")
	p.write(t, ".ci.yml", "version: 1\nimages: {web: {build: .}}\n")
	_, parsed, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := parsed.Expand(pipeline.Event{})
	if err != nil {
		t.Fatal(err)
	}
	parts, err := partsOf(dir, plan)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := upload.Open(t.Context(), dir, parts)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if want := []string{".", ".ci.yml", ".dockerignore", "Dockerfile"}; !slices.Equal(tree.Names(), want) {
		t.Errorf("%v are uploaded, want %v", tree.Names(), want)
	}
}

func (p place) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// foretells: what a run would do is said, and none is made.
func (v *served) foretells(t *testing.T, dev place, run store.Run) {
	before := len(v.runs(t))
	dry := func(args ...string) []byte {
		return dev.must(t, append([]string{"run", "pipeline", v.dir, "--dry-run", "--server", "http://" + v.address}, args...)...)
	}
	var cast engine.Forecast
	if err := json.Unmarshal(dry("--json"), &cast); err != nil {
		t.Fatal(err)
	}
	if cast.Plan != run.Plan || cast.Commit != run.Commit || len(cast.Images) != 1 || len(cast.Images[0].Tests) != 1 {
		t.Errorf("%+v", cast)
	}
	if len(cast.Environments) != 1 || cast.Environments[0].Name != "test" || cast.Environments[0].Error != "" || len(cast.Environments[0].Gates) == 0 {
		t.Errorf("%+v", cast.Environments)
	}
	if text := string(dry("--only", "web")); !strings.Contains(text, "plan sha256:") || !strings.HasSuffix(text, "nothing was built, started or written\n") {
		t.Errorf("it printed:\n%s", text)
	}
	if n := len(v.runs(t)); n != before {
		t.Errorf("%d runs, %d before", n, before)
	}
	if left, err := os.ReadDir(filepath.Join(v.root, "work")); len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// failsRemotely: the exit code and the result are those of a local run, and a secret that
// others may read is not the upload's.
func (v *served) failsRemotely(t *testing.T, dev place) {
	v.write(t, "failing/Dockerfile", "FROM example.com/base:1\n")
	v.write(t, "failing/.ci.yml", "version: 1\nimages: {web: {build: ., tests: {unit: {command: \"echo why; exit 3\"}}}}\n")
	run, _, code := dev.remotely(t, filepath.Join(v.dir, "failing"))
	if tests := testsOf(run); code != exitFailed || run.State != pipeline.Failed || *tests["web/unit"].ExitCode != 3 {
		t.Errorf("exit code %d: %+v", code, run)
	}
	cmd := v.slipway("secrets", "set", "TOKEN", "--repo", "example/web")
	cmd.Stdin = strings.NewReader("very-secret-value")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	v.write(t, "failing/.ci.yml", "version: 1\nimages: {web: {build: ., tests: {unit: {command: \"env; cat /run/secrets/*\", secrets: [TOKEN]}}}}\n")
	run, said, code := dev.remotely(t, filepath.Join(v.dir, "failing"))
	if code != exitFailed || !strings.Contains(run.Reason, "TOKEN") || strings.Contains(said, "very-secret") {
		t.Errorf("exit code %d: %+v\n%s", code, run, said)
	}
	cmd = v.slipway("secrets", "set", "TOKEN", "--repo", "uploads")
	cmd.Stdin = strings.NewReader("for-all-uploads")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if run, said, code = dev.remotely(t, filepath.Join(v.dir, "failing")); code != exitDone || strings.Contains(said, "for-all-uploads") {
		t.Errorf("exit code %d: %+v\n%s", code, run, said)
	}
}

func (v *served) refusesUploads(t *testing.T, dev place) {
	for _, c := range []struct{ args, want string }{
		{"--keep-failed", "for a run on this machine"}, {"--secrets x", "slipway secrets set"}, {"--only nothing", "nothing"},
	} {
		cmd := dev.slipway(append([]string{"run", "pipeline", v.dir}, strings.Fields(c.args)...)...)
		if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: %v %s", c.args, err, out)
		}
	}
	viewer := v.asDeveloper(t, "viewer")
	if out, err := viewer.slipway("run", "pipeline", v.dir).CombinedOutput(); err == nil || !strings.Contains(string(out), "takes a developer") {
		t.Errorf("a viewer uploads: %v %s", err, out)
	}
}

const slowPipeline = "version: 1\nimages: {web: {build: ., tests: {unit: {command: \"echo begun; test -e /gone || sleep 600\", timeout: 20m}}}}\n"

// begun starts a remote run, and waits until its test says so.
func (v *served) begun(t *testing.T, dev place) (*exec.Cmd, ledger.Run) {
	t.Helper()
	v.write(t, "slow/Dockerfile", "FROM example.com/base:1\n")
	v.write(t, "slow/.ci.yml", slowPipeline)
	cmd := dev.slipway("run", "pipeline", filepath.Join(v.dir, "slow"), "--json")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := os.CreateTemp(t.TempDir(), "said-")
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, v.newest(t, "running, and the client aware of it", func(r ledger.Run) bool {
		return r.State == ledger.Running && strings.Contains(saidBy(cmd), "slipway: run "+r.ID)
	})
}

func saidBy(cmd *exec.Cmd) string {
	data, _ := os.ReadFile(cmd.Stderr.(*os.File).Name()) //nolint:forcetypeassert // begun made it
	return string(data)
}

func (v *served) newest(t *testing.T, what string, wanted func(ledger.Run) bool) (r ledger.Run) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if r = v.runs(t)[0]; wanted(r) {
			return r
		}
	}
	t.Fatalf("the newest run never came to be %s: %+v\n%s", what, r, v.said())
	return r
}

// interruptsRemotely: Ctrl-C here ends the run there.
func (v *served) interruptsRemotely(t *testing.T, dev place, who string) {
	t.Helper()
	cmd, run := v.begun(t, dev)
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait() // the code is looked at
	if code := cmd.ProcessState.ExitCode(); code != exitCanceled {
		t.Errorf("exit code %d", code)
	}
	run = v.newest(t, "over", func(r ledger.Run) bool { return r.State.Over() })
	if run.State != ledger.Canceled || !strings.Contains(run.Reason, "canceled by "+who) {
		t.Errorf("%s %s", run.State, run.Reason)
	}
}

// uploadOutlivesKill: what was accepted is run by the next server, and the client waits for that.
func (v *served) uploadOutlivesKill(t *testing.T, dev place) {
	cmd, run := v.begun(t, dev)
	_ = cmd.Process.Kill() // the person goes home
	_ = cmd.Wait()
	waiting := v.slipway("logs", "-f", "last")
	shown, err := waiting.StdoutPipe()
	said, err2 := waiting.StderrPipe()
	if err := errors.Join(err, err2, waiting.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(shown).ReadString('\n'); err != nil { // it follows
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, shown) }() // ends with the command
	v.stop(t, syscall.SIGKILL)
	line, err := bufio.NewReader(said).ReadString('\n')
	if want := "slipway: the server of " + v.root + " does not answer any more; run " + run.ID + " is followed on when it does\n"; line != want {
		t.Errorf("%q, want %q: %v", line, want, err)
	}
	v.start(t)
	again := v.newest(t, "running again", func(r ledger.Run) bool { return r.State == ledger.Running && r.Attempts == 2 })
	if again.ID != run.ID {
		t.Errorf("run %s became %s", run.ID, again.ID)
	}
	v.must(t, "cancel", again.ID)
	v.newest(t, "over", func(r ledger.Run) bool { return r.State.Over() })
	if err := waiting.Wait(); err != nil {
		t.Errorf("following: %v", err)
	}
}

// leavesGoneServer: Ctrl-C ends the command also where no server is there to end the run.
func (v *served) leavesGoneServer(t *testing.T, dev place) {
	cmd, run := v.begun(t, dev)
	v.stop(t, syscall.SIGKILL)
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait() // the code is looked at
	if said := saidBy(cmd); cmd.ProcessState.ExitCode() != exitCanceled || !strings.Contains(said, "slipway cancel "+run.ID) {
		t.Errorf("exit code %d: %s", cmd.ProcessState.ExitCode(), said)
	}
	v.start(t)
	v.must(t, "cancel", run.ID)
	v.newest(t, "over", func(r ledger.Run) bool { return r.State.Over() })
}
