package runner_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"slipway/pipeline"
	"slipway/runner"
)

// state is what sandboxes could leave on a host.
type state struct {
	mounts, cgroups, processes, files int
	names                             string
}

// look counts what belongs to this bench: its mounts, cgroups, processes and files.
func (b *bench) look() state {
	b.Helper()
	var s state
	var names bytes.Buffer
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, b.opts.Root) || strings.Contains(line, "slipway-sandbox") {
			s.mounts++
			names.WriteString(line)
		}
	}
	top := strings.Split(b.opts.Cgroup, "/")[1]
	dirs, _ := filepath.Glob("/sys/fs/cgroup/" + top + "*")
	more, _ := filepath.Glob("/sys/fs/cgroup/*/" + top + "*")
	for _, d := range append(dirs, more...) {
		s.cgroups++
		fmt.Fprintln(&names, d)
	}
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmd, _ := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline"))
		if strings.Contains(string(cmd), b.opts.Root) || inCgroup(pid, top) {
			s.processes++
			fmt.Fprintf(&names, "process %d %q\n", pid, cmd)
		}
	}
	entries, _ := os.ReadDir(b.opts.Root)
	for _, e := range entries {
		s.files++
		fmt.Fprintln(&names, e.Name())
	}
	s.names = names.String()
	return s
}

func inCgroup(pid int, top string) bool {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return strings.Contains(string(data), "/"+top+"/")
}

// clean fails the test unless nothing is left. Namespaces and file descriptors
// of the kernel's own end a moment after their processes, so it looks again for
// a while.
func (b *bench) clean() {
	b.Helper()
	var s state
	for range 200 {
		s = b.look()
		if s.mounts+s.cgroups+s.processes+s.files == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.Errorf("left behind: %d mounts, %d cgroups, %d processes, %d directories\n%s", s.mounts, s.cgroups, s.processes, s.files, s.names)
}

func soak() int {
	if os.Getenv("SLIPWAY_SOAK") != "" {
		return 25
	}
	return 3
}

// openFiles of a process once their number stands still, without the user
// namespaces of the id ranges: the helper keeps those for the next sandbox.
func openFiles(pid string) int {
	count := func() (n int) {
		fds, _ := filepath.Glob("/proc/" + pid + "/fd/*")
		for _, fd := range fds {
			if link, err := os.Readlink(fd); err == nil && !strings.HasPrefix(link, "user:[") {
				n++
			}
		}
		return n
	}
	n := count()
	for range 20 {
		time.Sleep(100 * time.Millisecond)
		now := count()
		if now == n {
			break
		}
		n = now
	}
	return n
}

// helperPID finds the helper among this process's children.
func (b *bench) helperPID() int {
	b.Helper()
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, task := range tasks {
		children, _ := os.ReadFile(task)
		for _, c := range strings.Fields(string(children)) {
			cmd, _ := os.ReadFile("/proc/" + c + "/cmdline")
			if pid, err := strconv.Atoi(c); err == nil && strings.Contains(string(cmd), "slipway-sandbox\x00-root\x00"+b.opts.Root+"\x00") {
				return pid
			}
		}
	}
	b.Fatal("there is no helper")
	return 0
}

// The helper is killed at any moment: tests under way are errors, never passes,
// nothing hangs, and the next Open finds and removes what was left.
func TestHelperKilled(t *testing.T) {
	b := open(t)
	for range soak() {
		pid := b.helperPID()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				res, err := b.Test(context.Background(), b.request(pipeline.Test{Command: []string{"sh", "-c", "echo x >/f; setsid sleep 500 & sleep 500"}}), io.Discard)
				if err == nil {
					t.Errorf("a killed sandbox came to %+v", res)
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		_ = b.Close() // it has nobody left to close
		b.reopen()
		if err := b.Settle(context.Background()); err != nil {
			t.Fatal(err)
		}
		b.passes(`true`)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	b.clean()
}

// clientEnv makes the test binary a runner's client, to be killed.
const clientEnv = "SLIPWAY_TEST_CLIENT"

// The client is killed at any moment: its helper removes everything by itself,
// and what it could not the next Open does.
func TestClientKilled(t *testing.T) {
	if dir := os.Getenv(clientEnv); dir != "" {
		client(t, dir)
		return
	}
	b := open(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for range soak() {
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestClientKilled$")
		cmd.Env = append(os.Environ(), builtEnv+"="+programs.dir, clientEnv+"="+strings.Join([]string{b.opts.Helper, b.opts.Agent, b.opts.Root, b.opts.Cgroup, b.image}, "|"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		b.reopen()
		if err := b.Settle(context.Background()); err != nil {
			t.Fatal(err)
		}
		b.passes(`true`)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		b.clean()
	}
}

// client runs sandboxes until it is killed.
func client(t *testing.T, spec string) {
	f := strings.Split(spec, "|")
	r, err := runner.Open(context.Background(), runner.Options{Helper: f[0], Agent: f[1], Root: f[2], Cgroup: f[3], Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{TB: t, Runner: r, image: f[4]}
	for range 3 {
		go func() {
			for {
				_, _ = b.Test(context.Background(), b.request(pipeline.Test{Command: []string{"sh", "-c", "setsid sleep 500 & sleep 0.05"}}), io.Discard)
			}
		}()
	}
	time.Sleep(time.Minute)
}

// Close ends what still runs, as an error and not as a result.
func TestCloseWhileRunning(t *testing.T) {
	b := open(t)
	done := make(chan error)
	go func() {
		_, err := b.Test(context.Background(), b.request(pipeline.Test{Command: []string{"sleep", "500"}}), io.Discard)
		done <- err
	}()
	time.Sleep(300 * time.Millisecond)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("a sandbox that was closed passed")
	}
	b.clean()
	if _, err := b.Prepare(context.Background(), b.request(pipeline.Test{})); err == nil {
		t.Error("a closed runner made a sandbox")
	}
}

// Sandboxes that nobody closed do not keep Close waiting.
func TestCloseWithPrepared(t *testing.T) {
	b := open(t)
	for range 2 {
		if _, err := b.Prepare(context.Background(), b.request(pipeline.Test{})); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	b.clean()
}

// A sandbox made ahead runs one command, later.
func TestPrepareThenExec(t *testing.T) {
	b := open(t)
	s, err := b.Prepare(context.Background(), b.request(pipeline.Test{Command: []string{"echo", "x"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out strings.Builder
	res, err := s.Exec(context.Background(), time.Now(), &out)
	if err != nil || res.State != pipeline.Passed || out.String() != "x\n" {
		t.Errorf("%+v %v %q", res, err, out.String())
	}
	if _, err := s.Exec(context.Background(), time.Now(), &out); err == nil {
		t.Error("it ran a second command")
	}
}

// A helper that cannot start says why, at the first use.
func TestOpenFails(t *testing.T) {
	sandboxes(t)
	_, err := runner.Open(context.Background(), runner.Options{Helper: "/missing", Agent: programs.agent, Root: t.TempDir(), Cgroup: "/slipway-test/x"})
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("no helper: %v", err)
	}
	r, err := runner.Open(context.Background(), runner.Options{Helper: programs.helper, Agent: "/missing", Root: t.TempDir(), Cgroup: "/slipway-test/x", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Settle(context.Background()); err == nil || !strings.Contains(err.Error(), "/missing") {
		t.Errorf("no agent: %v", err)
	}
	_ = r.Close()
}
