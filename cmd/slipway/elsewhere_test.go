package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"slipway/internal/ledger"
	"slipway/internal/need"
	"slipway/internal/store"
	"slipway/pipeline"
)

// clientFor is slipway as it is built for systems that have no sandboxes, here for
// this one, so that it can be run.
func clientFor(t *testing.T, env []string) func(args ...string) (out string, code int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "slipway")
	if out, err := exec.Command(need.Tool(t, "go"), "build", "-tags", "client", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return func(args ...string) (string, int) {
		cmd := exec.Command(path, args...)
		cmd.Env = env
		out, _ := cmd.CombinedOutput() // the code is looked at
		return string(out), cmd.ProcessState.ExitCode()
	}
}

// The client says of what it cannot do that a server does it, or where to do it.
func TestClientHasNoRoot(t *testing.T) {
	dir := t.TempDir()
	run := clientFor(t, append(os.Environ(), "SLIPWAY_ROOT="+filepath.Join(dir, "root"), "SLIPWAY_SERVER=", "HOME="+dir))
	for _, c := range commandsHere(&globals{}) {
		if out, code := run(c.Name(), "--anything"); code != exitUsage || !strings.Contains(out, "slipway "+c.Name()+" needs slipway for Linux") || !strings.Contains(out, "on the server's machine") {
			t.Errorf("%s: %d %s", c.Name(), code, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".ci.yml"), []byte("version: 1\nimages: {web: {build: .}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"run pipeline " + dir, "runs", "logs last", "shell last/web/it", "rerun --frozen last", "promote web --from test --to prod", "rollback prod", "env status", "logs --env prod",
	} {
		if out, code := run(strings.Fields(args)...); code != exitUsage || !strings.Contains(out, "needs slipway for Linux") || !strings.Contains(out, "--server URL") {
			t.Errorf("%s: %d %s", args, code, out)
		}
	}
	for _, args := range []string{"cancel last", "allow last"} {
		if out, code := run(strings.Fields(args)...); code != exitUsage || !strings.Contains(out, "--server") {
			t.Errorf("%s: %d %s", args, code, out)
		}
	}
	for _, args := range []string{"validate " + dir, "schema", "version", "keys generate --out " + filepath.Join(dir, "key"), "--help"} {
		if out, code := run(strings.Fields(args)...); code != exitDone {
			t.Errorf("%s: %d %s", args, code, out)
		}
	}
	for _, os := range []string{"darwin", "windows"} {
		cmd := exec.Command("go", "list", "-deps", ".")
		cmd.Env = append(cmd.Environ(), "GOOS="+os, "CGO_ENABLED=0")
		deps, err := cmd.Output()
		if err != nil || strings.Contains(string(deps), "moby/buildkit") || strings.Contains(string(deps), "slipway/runner") {
			t.Errorf("the client for %s has an engine in it: %v", os, err)
		}
	}
}

// What the client does through a server it does as slipway itself.
func TestClientOfServer(t *testing.T) {
	need.Tool(t, "go")
	v := newServed(t)
	v.env = append(v.env, "SLIPWAY_KEEP_FAILED=10m")
	v.start(t)
	t.Cleanup(func() { thawAll(t, filepath.Join(v.root, "runner")); v.settled(t) })
	commit := v.git(t, "rev-parse", "HEAD")
	v.push(t, "d1", zeros, commit)
	pushed := v.until(t, commit, "promoted", promoted)
	image := "web@" + recordOf(t, pushed).Images[0].Digest
	admin := v.asDeveloper(t, "sysadmin")
	run := clientFor(t, append(admin.env, "SLIPWAY_HELPERS="))
	v.write(t, "failing/Dockerfile", "FROM example.com/base:1\n")
	v.write(t, "failing/.ci.yml", "version: 1\nimages: {web: {build: ., tests: {it: {command: \"echo found > /tmp/it; exit 1\"}}}}\n")
	out, code := run("run", "pipeline", filepath.Join(v.dir, "failing"), "--json", "--progress", "quiet")
	var failed store.Run
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &failed); err != nil || code != exitFailed || failed.State != pipeline.Failed {
		t.Fatalf("%d %v %s", code, err, out)
	}
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"runs", pushed.ID, exitDone},
		{"runs " + pushed.ID, "promotion done", exitDone},
		{"logs " + pushed.ID, "web/unit | text 1", exitDone},
		{"logs -f " + failed.ID, "web/it | ", exitFailed},
		{"shell", failed.ID + "/web/it", exitDone},
		{"shell " + failed.ID + "/web/it -- cat /tmp/it", "found", exitDone},
		{"rerun " + failed.ID + " --from-failed", "run " + failed.ID + " is ", exitDone},
		{"cancel " + pushed.ID, "has passed already", exitUsage},
		{"allow " + pushed.ID, "is not held", exitUsage},
		{"env status", image[len("web@"):], exitDone},
		{"env history test", "promote", exitDone},
		{"env diff test", "image web", exitDone},
		{"promote " + image + " --to test --yes", "unchanged", exitDone},
		{"rollback test --yes", "nothing ran in test before", exitUsage},
		{"approve " + image + " --to test --key " + filepath.Join(v.dir, "none"), "none", exitUsage},
	} {
		if out, code := run(strings.Fields(c.args)...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: %d, want %d with %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
	v.newest(t, "over", func(r ledger.Run) bool { return r.State.Over() })
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d\n%s", code, v.said())
	}
	for _, name := range []string{"shell", "runs"} {
		if out, code := run(name); code == exitDone {
			t.Errorf("%s without a server: %s", name, out)
		}
	}
}
