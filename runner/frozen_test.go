package runner_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/pipeline"
	"slipway/runner"
)

// freeze runs a shell script as a test and keeps its sandbox.
func (b *bench) freeze(name string, stay time.Duration, script string, edit ...func(*runner.Request)) (pipeline.Result, string) {
	b.Helper()
	s, err := b.Prepare(context.Background(), b.request(pipeline.Test{Command: []string{"/bin/sh", "-c", script}, Timeout: time.Minute}, edit...))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var out strings.Builder
	res, err := s.Exec(context.Background(), time.Now(), &out)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Freeze(context.Background(), name, stay); err != nil {
		b.Fatalf("%v (%+v)\n%s", err, res, out.String())
	}
	return res, out.String()
}

// frozen are all that are kept on this root; they are removed with the test.
func (b *bench) frozen() []runner.Frozen {
	b.Helper()
	all, err := runner.ListFrozen(context.Background(), b.opts.Root)
	if err != nil {
		b.Fatal(err)
	}
	return all
}

func (b *bench) thaw() {
	for _, f := range b.frozen() {
		if err := f.Thaw(context.Background()); err != nil {
			b.Error(err)
		}
	}
}

// visit opens what is kept under the name.
func (b *bench) visit(name, service string) *runner.Visit {
	b.Helper()
	for _, f := range b.frozen() {
		if f.Name != name {
			continue
		}
		v, err := f.Visit(context.Background(), service)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = v.Close() }) // closed already, or the sandbox is gone
		return v
	}
	b.Fatalf("no %s is kept", name)
	return nil
}

// in runs a shell script in a frozen sandbox.
func in(t testing.TB, v *runner.Visit, script string) string {
	t.Helper()
	var out, errs strings.Builder
	e, err := v.Run(context.Background(), runner.Command{Args: []string{"/bin/sh", "-c", script}}, runner.Streams{Out: &out, Err: &errs})
	if err != nil || e.Code != 0 || errs.String() != "" {
		t.Fatalf("%s: %+v, %v\n%s%s", script, e, err, out.String(), errs.String())
	}
	return out.String()
}

// waitFor waits for a condition that comes about by itself.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come about", what)
		}
	}
}

// nothingLeft waits until no helper has anything on the root any more.
func (b *bench) nothingLeft() {
	b.Helper()
	waitFor(b, "the end of the helper", func() bool {
		left, err := filepath.Glob(filepath.Join(b.opts.Root, "*"))
		return err == nil && len(left) == 0
	})
	waitFor(b, "the end of its cgroups", func() bool {
		left, err := filepath.Glob("/sys/fs/cgroup/*" + filepath.Dir(b.opts.Cgroup))
		return err == nil && len(left) == 0
	})
}

// What a failed test left is there after the runner's end: files, environment,
// user and directory; what it had running is not.
func TestFrozenOutlivesRunner(t *testing.T) {
	b := open(t)
	res, _ := b.freeze("r/app/it", time.Hour, "echo found > /tmp/what; sleep 600 & echo $! > /tmp/pid; exit 3", func(q *runner.Request) {
		q.Test.User, q.Test.WorkingDir, q.Test.Environment = "bob", "/srv", map[string]string{"A": "b c"}
	})
	t.Cleanup(b.thaw)
	if res.State != pipeline.Failed || res.ExitCode != 3 {
		t.Fatalf("%+v", res)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	v := b.visit("r/app/it", "")
	if got := in(t, v, `cat /tmp/what; id -un; pwd; echo "$A"; [ -e /proc/$(cat /tmp/pid) ] || echo ended`); got != "found\nbob\n/srv\nb c\nended\n" {
		t.Errorf("got %q", got)
	}
	var out strings.Builder
	e, err := v.Run(context.Background(), runner.Command{Args: []string{"sh", "-c", "id -un; exit 42"}, User: "root"}, runner.Streams{Out: &out})
	if err != nil || e.Code != 42 || out.String() != "root\n" {
		t.Errorf("%+v, %v, %q", e, err, out.String())
	}
	e, err = v.Run(context.Background(), runner.Command{Args: []string{"nosuch"}}, runner.Streams{})
	if err != nil || e.Code != 127 || !e.Refused || !strings.Contains(e.Reason, "nosuch is not in the image") {
		t.Errorf("%+v, %v", e, err)
	}
	if all := b.frozen(); len(all) != 1 || all[0].Users != 1 || time.Until(all[0].Until) < 50*time.Minute {
		t.Errorf("%+v", all)
	}
	b.thaw()
	if _, err := v.Run(context.Background(), runner.Command{Args: []string{"true"}}, runner.Streams{}); err == nil {
		t.Error("a command ran in what is removed")
	}
	b.nothingLeft()
}

// A command in what is kept has no more rights than the test had.
func TestFrozenRights(t *testing.T) {
	b := open(t)
	const rights = "grep -E '^(Cap|NoNewPrivs|Seccomp|Uid|Gid|Groups)' /proc/self/status; cat /proc/self/cgroup"
	_, want := b.freeze("r/t", time.Hour, rights+"; exit 1")
	defer b.thaw()
	if !strings.Contains(want, "NoNewPrivs:\t1") || !strings.Contains(want, "Seccomp:\t2") {
		t.Fatalf("got %q", want)
	}
	for range 5 { // whatever thread of the agent it comes from
		if got := in(t, b.visit("r/t", ""), rights); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}

// Streams are three: input to its end, output and errors apart.
func TestFrozenStreams(t *testing.T) {
	b := open(t)
	b.freeze("r/t", time.Hour, "exit 1")
	defer b.thaw()
	v := b.visit("r/t", "")
	input := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	var out, errs bytes.Buffer
	e, err := v.Run(context.Background(), runner.Command{Args: []string{"sh", "-c", "cat; echo done >&2; exit 5"}},
		runner.Streams{In: bytes.NewReader(input), Out: &out, Err: &errs})
	if err != nil || e.Code != 5 || !bytes.Equal(out.Bytes(), input) || errs.String() != "done\n" {
		t.Errorf("%+v, %v, %d bytes, %q", e, err, out.Len(), errs.String())
	}
	// What stays in the background with the output open keeps nobody waiting.
	if got := in(t, v, "setsid sleep 600 & echo ok"); got != "ok\n" {
		t.Errorf("got %q", got)
	}
	// And its pipe is nobody else's: its output ends nowhere.
	in(t, v, "setsid sh -c 'while echo noise; do sleep 0.01; done' & exit 0")
	for range 5 {
		if got := in(t, v, "sleep 0.05; echo mine"); got != "mine\n" {
			t.Fatalf("got %q", got)
		}
	}
}

// A context that ends is an interrupt for the command, which may take its time.
func TestFrozenInterrupt(t *testing.T) {
	b := open(t)
	b.freeze("r/t", time.Hour, "exit 1")
	defer b.thaw()
	v := b.visit("r/t", "")
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	go func() {
		_, _ = r.Read(make([]byte, 16)) // it has set its trap
		cancel()
		_, _ = io.Copy(io.Discard, r)
	}()
	e, err := v.Run(ctx, runner.Command{Args: []string{"sh", "-c", "trap 'exit 9' INT; echo up; while :; do sleep 0.01; done"}}, runner.Streams{Out: w})
	if err != nil || e.Code != 9 {
		t.Errorf("%+v, %v", e, err)
	}
}

// terminal is one with a shell that shows what it is told.
type terminal struct {
	*testing.T
	*runner.Terminal
	shown chan string
}

func openTerminal(t *testing.T, v *runner.Visit, size runner.Size, args ...string) *terminal {
	t.Helper()
	term, e, err := v.Open(context.Background(), runner.Command{Args: args, Env: map[string]string{"PS1": "ready> "}}, size)
	if err != nil || e.Refused {
		t.Fatalf("%+v, %v", e, err)
	}
	x := &terminal{t, term, make(chan string, 1)}
	x.shown <- ""
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := term.Master.Read(b)
			x.shown <- <-x.shown + string(b[:n])
			if err != nil {
				return
			}
		}
	}()
	return x
}

func (x *terminal) types(s string) {
	x.Helper()
	if _, err := x.Master.WriteString(s); err != nil {
		x.Fatal(err)
	}
}

// shows waits until the terminal shows a text after the last one waited for.
func (x *terminal) shows(want string) {
	x.Helper()
	var got string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		got = <-x.shown
		if _, after, ok := strings.Cut(got, want); ok {
			x.shown <- after
			return
		}
		x.shown <- got
		if time.Now().After(deadline) {
			x.Fatalf("%q is not shown: %q", want, got)
		}
	}
}

func (x *terminal) ends() runner.Exit {
	x.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, err := x.Wait(ctx)
	if err != nil {
		x.Fatal(err)
	}
	if err := x.Close(); err != nil {
		x.Error(err)
	}
	return e
}

// A terminal is one: it has a name, a size that changes, a foreground process
// that Ctrl-C reaches and the shell does not see, and an exit code.
func TestTerminal(t *testing.T) {
	b := open(t)
	b.freeze("r/t", time.Hour, "exit 1", func(q *runner.Request) { q.Test.User = "bob" })
	defer b.thaw()
	v := b.visit("r/t", "")
	x := openTerminal(t, v, runner.Size{Rows: 31, Cols: 97}, "/bin/sh")
	x.shows("ready> ")
	x.types("test -t 0 && test -t 2 && echo is-a-tt''y; readlink /proc/self/fd/0; echo x > /dev/tty && echo by-na''me\n")
	x.shows("is-a-tty")
	x.shows("/dev/pts/0")
	x.shows("by-name")
	x.types("stty size || busybox stty size\n")
	x.shows("31 97")
	if err := x.Resize(runner.Size{Rows: 12, Cols: 40}); err != nil {
		t.Fatal(err)
	}
	x.types("busybox stty size\n")
	x.shows("12 40")
	x.types("sh -c 'trap \"echo re''sized\" WINCH; echo wai''ting; while :; do sleep 0.01; done'\n")
	x.shows("waiting")
	if err := x.Resize(runner.Size{Rows: 13, Cols: 41}); err != nil {
		t.Fatal(err)
	}
	x.shows("resized")
	x.types("\x03") // ends the loop, not the shell
	x.types("echo still-he''re $?\n")
	x.shows("still-here 130")
	x.types("exit 7\n")
	if e := x.ends(); e.Code != 7 {
		t.Errorf("%+v", e)
	}
}

// Two terminals at once, and the end of one by hanging up: what ran in it is gone.
func TestTerminalHangsUp(t *testing.T) {
	b := open(t)
	b.freeze("r/t", time.Hour, "exit 1")
	defer b.thaw()
	one, two := b.visit("r/t", ""), b.visit("r/t", "")
	x := openTerminal(t, one, runner.Size{}, "sh", "-c", "echo $$ > /tmp/one; echo run''ning; exec sleep 600")
	x.shows("running")
	pid := strings.TrimSpace(in(t, two, "cat /tmp/one"))
	if got := in(t, two, "cat /proc/"+pid+"/comm"); got != "sleep\n" {
		t.Fatalf("got %q", got)
	}
	if err := one.Close(); err != nil { // as when the client is killed
		t.Fatal(err)
	}
	waitFor(t, "the end of what ran in the terminal", func() bool {
		return in(t, two, "[ -e /proc/"+pid+" ] || echo gone") == "gone\n"
	})
	waitFor(t, "the end of one use", func() bool {
		all := b.frozen()
		return len(all) == 1 && all[0].Users == 1
	})
}

// Its time does not pass while it is used, and then it does.
func TestFrozenExpires(t *testing.T) {
	b := open(t)
	// Some end while the runner does.
	for i := range 20 {
		b.freeze(fmt.Sprint("r/short", i), time.Duration(i+1)*time.Millisecond, "exit 1")
	}
	b.freeze("r/t", 3*time.Second, "exit 1")
	v := b.visit("r/t", "")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	in(t, v, "sleep 3.5; echo long after its time")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	b.nothingLeft()
	if all := b.frozen(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// Other runners work on the same root meanwhile, with other ranges of ids.
func TestSecondRunnerWhileFrozen(t *testing.T) {
	b := open(t)
	ids := func() string { return b.passes("cat /proc/self/uid_map") }
	first := ids()
	for i := range 3 {
		b.freeze(fmt.Sprint("r/t", i), time.Hour, "exit 1")
	}
	t.Cleanup(b.thaw)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	kept := map[string]bool{}
	for i := range 3 {
		kept[in(t, b.visit(fmt.Sprint("r/t", i), ""), "cat /proc/self/uid_map")] = true
	}
	if len(kept) != 3 {
		t.Errorf("ranges are shared: %v", kept)
	}
	b.reopen()
	if err := b.Settle(context.Background()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if now := ids(); kept[now] {
			t.Errorf("a new sandbox has the range of a frozen one: %s (first was %s)", now, first)
		}
	}
	if len(b.frozen()) != 3 {
		t.Errorf("%+v", b.frozen())
	}
	if got := in(t, b.visit("r/t1", ""), "echo well"); got != "well\n" {
		t.Errorf("got %q", got)
	}
}

// A helper that dies takes what it keeps along; the next start removes the rest.
func TestFrozenHelperKilled(t *testing.T) {
	b := open(t)
	b.freeze("r/t", time.Hour, "exit 1")
	v := b.visit("r/t", "")
	x := openTerminal(t, v, runner.Size{}, "sh")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	pids := helpersOf(t, b.opts.Root)
	if len(pids) != 1 {
		t.Fatalf("helpers: %v", pids)
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Wait(context.Background()); err == nil {
		t.Error("a terminal outlived its sandbox")
	}
	if all := b.frozen(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	b.reopen()
	if err := b.Settle(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.nothingLeft()
}

// helpersOf finds the helpers of a root by their arguments.
func helpersOf(t testing.TB, root string) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		data, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(data), "slipway-sandbox") && strings.Contains(string(data), root) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// The services of a failed test stay too, reached as before; they go on when
// nobody reads their log.
func TestFrozenServices(t *testing.T) {
	b := open(t)
	chatty := b.service("chatty", "i=0; while :; do i=$((i+1)); echo $i > /tmp/i; echo line $i of a long and useless log; sleep 0.001; done")
	res, out := b.freeze("r/t", time.Hour, "nc db 7 </dev/null; exit 1", beside(b.service("db", answers, checked("CMD-SHELL", "nc localhost 7 </dev/null")), chatty))
	t.Cleanup(b.thaw)
	if res.State != pipeline.Failed || !strings.Contains(out, "hello from db") {
		t.Fatalf("%+v\n%s", res, out)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	v := b.visit("r/t", "")
	if got := in(t, v, "nc db 7 </dev/null"); got != "hello from db\n" {
		t.Errorf("got %q", got)
	}
	if got := in(t, b.visit("r/t", "db"), "hostname"); got != "db\n" {
		t.Errorf("got %q", got)
	}
	c := b.visit("r/t", "chatty")
	before := in(t, c, "cat /tmp/i")
	waitFor(t, "more of a service's log", func() bool {
		now := in(t, c, "cat /tmp/i")
		return now != "" && now != before
	})
	if all := b.frozen(); len(all) != 1 || strings.Join(all[0].Services, " ") != "db chatty" {
		t.Errorf("%+v", all)
	}
	if _, err := b.frozen()[0].Visit(context.Background(), "cache"); err == nil || !strings.Contains(err.Error(), `no service "cache"`) {
		t.Errorf("got %v", err)
	}
	b.thaw()
	b.nothingLeft()
}

// A sandbox that was killed whole cannot be kept, and says so.
func TestFreezeNothing(t *testing.T) {
	b := open(t)
	s, err := b.Prepare(context.Background(), b.request(pipeline.Test{
		Command: []string{"sh", "-c", "dd if=/dev/zero of=/x bs=1M count=200; sleep 600"}, Resources: pipeline.Resources{Disk: 8 << 20},
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if res, err := s.Exec(context.Background(), time.Now(), io.Discard); err != nil || !res.DiskFull {
		t.Fatalf("%+v, %v", res, err)
	}
	if err := s.Freeze(context.Background(), "r/t", time.Hour); err == nil || !strings.Contains(err.Error(), "nothing is left") {
		t.Errorf("got %v", err)
	}
}

// A helper that ends while it is asked what it keeps keeps nothing: who looks
// while another process is being cleaned up sees no error.
func TestHelperEndsWhileItIsAsked(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "session")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unixpacket", filepath.Join(dir, "control"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
			_ = c.Close()
		}
	}()
	if all, err := runner.ListFrozen(t.Context(), root); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}
