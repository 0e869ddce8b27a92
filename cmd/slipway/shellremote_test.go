package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/internal/server"
)

// failing uploads a pipeline whose test fails, and gives its run.
func (v *served) failing(t *testing.T, dev place, name, test string) string {
	t.Helper()
	v.write(t, name+"/Dockerfile", "FROM example.com/base:1\n")
	v.write(t, name+"/.ci.yml", "version: 1\nimages: {web: {build: ., tests: {it: {"+test+"}}, services: [db]}}\nservices: {db: {image: \"image:web\", command: [sh, -c, \"echo rows > /data; sleep 6000\"]}}\n")
	v.write(t, name+"/in/fixture", "fixture\n")
	run, said, code := dev.remotely(t, filepath.Join(v.dir, name))
	if code != exitFailed || run.Images[0].Tests[0].KeptUntil == nil || !strings.Contains(said, "slipway shell "+run.ID+"/web/it") {
		t.Fatalf("exit code %d, %+v\n%s\n%s", code, run, said, v.said())
	}
	return run.ID
}

// into runs a command in a kept test.
func (p place) into(test string, args ...string) (out string, code int) {
	cmd := p.slipway(append([]string{"shell", test, "--"}, args...)...)
	data, _ := cmd.CombinedOutput() // the code is looked at
	return string(data), cmd.ProcessState.ExitCode()
}

// A failed test on a server can be entered from elsewhere as it can be here: until
// its time is over, the server has no room for it, or starts again.
func TestShellOnServer(t *testing.T) {
	v := newServed(t)
	v.env = append(v.env, "SLIPWAY_KEEP_FAILED=10m", "SLIPWAY_KEEP_TESTS=2")
	v.start(t)
	dev, admin := v.asDeveloper(t, "developer"), v.asDeveloper(t, "sysadmin")
	const left = `command: "echo found > /tmp/it; exit 1", volumes: ["./in:/in:ro"]`
	first := v.failing(t, dev, "first", left)
	if out, code := dev.into(first+"/web/it", "sh", "-c", "cat /tmp/it /in/fixture; echo wrong >&2; exit 7"); code != 7 || !strings.Contains(out, "found\nfixture\n") || !strings.Contains(out, "wrong") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if out, code := dev.into(first, "/none"); code != 127 || !strings.Contains(out, "/none") {
		t.Errorf("exit code %d: %s", code, out)
	}
	cmd := dev.slipway("shell", first, "--service", "db", "--", "sh", "-c", "cat - /data")
	cmd.Stdin = strings.NewReader(strings.Repeat("typed\n", 20_000))
	if out, err := cmd.Output(); err != nil || string(out) != strings.Repeat("typed\n", 20_000)+"rows\n" {
		t.Errorf("%v: %d bytes", err, len(out))
	}
	t.Run("terminal", func(t *testing.T) { shellInTerminal(t, dev.slipway("shell", first+"/web/it"), "") })
	t.Run("socket", func(t *testing.T) {
		if out, code := v.into(first+"/web/it", "cat", "/tmp/it"); code != exitDone || out != "found\n" {
			t.Errorf("exit code %d: %s", code, out)
		}
	})
	t.Run("signals", func(t *testing.T) { v.signalsShell(t, dev, first) })
	t.Run("secrets", func(t *testing.T) { v.keepsSecrets(t, dev, admin) }) // the second that is kept
	third := v.failing(t, dev, "third", left)
	if out, code := dev.into(first, "true"); code != exitUsage || !strings.Contains(out, "not any more") {
		t.Errorf("the oldest of three is kept: %d %s", code, out)
	}
	var list []server.Kept
	if err := json.Unmarshal(dev.must(t, "shell", "--json"), &list); err != nil || len(list) != 2 {
		t.Errorf("%v: %+v", err, list)
	}
	dev.must(t, "shell", "--rm", third)
	if out, code := dev.into(third, "true"); code != exitUsage {
		t.Errorf("removed, and open: %d %s", code, out)
	}
	v.failing(t, dev, "fourth", left)
	v.stop(t, syscall.SIGKILL)
	v.start(t)
	if out := string(dev.must(t, "shell")); !strings.Contains(out, "no failed test is kept") {
		t.Errorf("after a restart: %s", out)
	}
	if all, err := os.ReadDir(filepath.Join(v.root, "work")); err == nil && len(all) > 0 {
		t.Errorf("files of runs are left: %v", all)
	}
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d\n%s", code, v.said())
	}
	v.settled(t)
	v.nothingLeft(t, "after the shells")
}

// keepsSecrets: who enters can read them, so it takes the role that sets them.
func (v *served) keepsSecrets(t *testing.T, dev, admin place) {
	cmd := v.slipway("secrets", "set", "TOKEN", "--repo", "uploads")
	cmd.Stdin = strings.NewReader("a-secret-of-uploads")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	run := v.failing(t, dev, "secret", `command: "exit 1", secrets: [TOKEN]`)
	if out, code := dev.into(run, "cat", "/run/secrets/TOKEN"); code != exitUsage || !strings.Contains(out, "takes a sysadmin") || strings.Contains(out, "a-secret") {
		t.Errorf("a developer: %d %s", code, out)
	}
	if out, code := admin.into(run, "cat", "/run/secrets/TOKEN"); code != exitDone || out != "a-secret-of-uploads" {
		t.Errorf("a sysadmin: %d %s", code, out)
	}
	var deeds struct{ Deeds []ledger.Deed }
	if err := v.client(t).ask(t.Context(), "GET", "/api/v1/audit", nil, &deeds); err != nil {
		t.Fatal(err)
	}
	if d := deeds.Deeds[0]; d.Actor != "token sysadmin" || d.Action != "shell" || d.Object != run+"/web/it" || d.Detail != "cat /run/secrets/TOKEN" {
		t.Errorf("%+v", deeds.Deeds[:2])
	}
}

// signalsShell: Ctrl-C is the command's, and a client that is killed leaves nothing running.
func (v *served) signalsShell(t *testing.T, dev place, run string) {
	begin := func(script string) *exec.Cmd {
		t.Helper()
		cmd := dev.slipway("shell", run, "--", "sh", "-c", "echo $$ > /tmp/pid; "+script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; {
			if out, _ := dev.into(run, "cat", "/tmp/pid"); strings.TrimSpace(out) != "" && !strings.Contains(out, "No such file") {
				return cmd
			}
			if time.Now().After(deadline) {
				t.Fatal("the command never began")
			}
		}
	}
	cmd := begin("trap 'exit 42' INT; while :; do sleep 0.1; done")
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait() // the code is looked at
	if code := cmd.ProcessState.ExitCode(); code != 42 {
		t.Errorf("exit code %d after Ctrl-C", code)
	}
	dev.into(run, "rm", "/tmp/pid")
	cmd = begin("exec sleep 600")
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed
	for deadline := time.Now().Add(time.Minute); ; {
		out, _ := dev.into(run, "sh", "-c", "[ -e /proc/$(cat /tmp/pid) ] && echo lives; true")
		if out == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it still runs: %s", out)
		}
	}
}
