package runner_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"slipway/internal/need"
	"slipway/pipeline"
	"slipway/runner"
)

// TestHostileOut: links in /out lead nowhere. That the bait is good is seen in
// what a careless copier does with the same directory.
func TestHostileOut(t *testing.T) {
	b := open(t)
	bait := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(bait, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	made, kept := t.TempDir(), t.TempDir()
	leave := func(q *runner.Request) {
		q.Binds = []runner.Bind{{Source: programs.hostile, Target: "/hostile", ReadOnly: true}}
	}
	// The links are made where the suite can see them too.
	b.passes("/hostile out-links "+bait, leave, func(q *runner.Request) {
		q.Binds = append(q.Binds, runner.Bind{Source: made, Target: "/out"})
	})
	b.passes("/hostile out-links "+bait, leave, keepOut(kept))
	for _, name := range []string{"report.xml", "root" + bait, "up" + bait} {
		if content, err := os.ReadFile(filepath.Join(made, name)); string(content) != "of the host" {
			t.Errorf("the bait %s leads nowhere even for who follows it: %v", name, err)
		}
		if _, err := os.Lstat(filepath.Join(kept, name)); err == nil {
			t.Errorf("%s was kept", name)
		}
	}
	res, _ := b.sh("/hostile out-nest 3000", leave, keepOut(kept))
	if res.State != pipeline.Failed || !strings.Contains(res.Reason, "nested more than") {
		t.Errorf("3000 directories in each other: %+v", res)
	}
}

// TestOutputWithoutEnd is cut for a test; who sets no limit gets all of it.
func TestOutputWithoutEnd(t *testing.T) {
	b := open(t)
	leave := runner.Bind{Source: programs.hostile, Target: "/hostile", ReadOnly: true}
	var kept, all counter
	res, err := b.Test(context.Background(), b.request(pipeline.Test{Command: []string{"/hostile", "lines", "80"}}, func(q *runner.Request) { q.Binds = []runner.Bind{leave} }), &kept)
	if err != nil || res.State != pipeline.Passed || res.OutputSize < 80<<20 || kept.Load() > 65<<20 {
		t.Errorf("%v, %+v, %d bytes kept", err, res, kept.Load())
	}
	s := b.service("loud", "/hostile lines 80")
	c, err := b.Start(t.Context(), runner.ContainerRequest{ID: "loud", Service: s.Service, Rootfs: s.Rootfs, Binds: []runner.Bind{leave}}, &all)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-c.Ended()
	if n := all.Load(); n < 80<<20 {
		t.Errorf("%d bytes of 80 MiB arrived where nothing cuts", n)
	}
}

// TestServiceLogWithoutEnd: nobody reads along, so what is kept has an end.
func TestServiceLogWithoutEnd(t *testing.T) {
	b := open(t)
	var log counter
	loud := b.service("loud", "/hostile lines 80; touch /tmp/done; sleep 60", checked("CMD", "test", "-e", "/tmp/done"), func(s *runner.Service) {
		s.Binds = []runner.Bind{{Source: programs.hostile, Target: "/hostile", ReadOnly: true}}
		s.Log = &log
	})
	b.passes("true", beside(loud))
	if n := log.Load(); n < 64<<20 || n > 65<<20 {
		t.Errorf("%d bytes of log were kept", n)
	}
}

// counter counts what is written to it. A service writes on while it is read.
type counter struct{ atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}

// TestTooManyArguments are the test's fault, not slipway's.
func TestTooManyArguments(t *testing.T) {
	b := open(t)
	word := strings.Repeat("x", 100<<10)
	for name, test := range map[string]pipeline.Test{
		"arguments":    {Command: append([]string{"true"}, strings.Split(strings.Repeat(word+" ", 80), " ")...)},
		"one argument": {Command: []string{"true", strings.Repeat("x", 1<<20)}},
		"environment":  {Command: []string{"true"}, Environment: map[string]string{"A": strings.Repeat("x", 1<<20)}},
	} {
		res, err := b.Test(context.Background(), b.request(test), io.Discard)
		if err != nil || res.State != pipeline.Failed || res.ExitCode != 126 || !strings.Contains(res.Reason, "larger than Linux allows") {
			t.Errorf("%s: %v, %+v", name, err, res)
		}
	}
}

// TestInotifyOfTheHost: what a sandbox takes is not taken from the host's users,
// as it would be without a user namespace.
func TestInotifyOfTheHost(t *testing.T) {
	v := newVictim(t)
	tr := newTrial(t, v)
	const user = 42421 // of the sandbox, and nobody's on the host
	program := filepath.Join(need.OpenDir(t), "hostile")
	if data, err := os.ReadFile(programs.hostile); err != nil || os.WriteFile(program, data, 0o755) != nil {
		t.Fatal("copy the program:", err)
	}
	if inotifyStarved(program, user) {
		t.Fatal("that user of the host has no inotify before anything is tried")
	}
	for name, off := range map[string][]string{"as shipped": nil, "without a user namespace": {userNS}} {
		over := make(chan struct{})
		go func() {
			defer close(over)
			tr.try(t, attempt{run: by("inotify"), user: "42421"}, off...)
		}()
		starved := false
		for running := true; running && !starved; time.Sleep(20 * time.Millisecond) {
			select {
			case <-over:
				running = false
			default:
				starved = inotifyStarved(program, user)
			}
		}
		<-over
		if starved != (off != nil) {
			t.Errorf("%s: the host's user is left without inotify: %v", name, starved)
		}
	}
}

// inotifyStarved asks as a user of the host. The program is where that user finds it.
func inotifyStarved(program string, uid uint32) bool {
	cmd := exec.Command(program, "inotify-once")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, _ := cmd.CombinedOutput() // how it ended is in what it says
	return !strings.Contains(string(out), "SUCCEEDED")
}
