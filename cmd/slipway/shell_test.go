package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hostTerminal makes a terminal on this machine, as a window has one.
func hostTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	peer, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, uintptr(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
	if e != 0 {
		t.Fatal(e)
	}
	master, slave = os.NewFile(uintptr(fd), "master"), os.NewFile(peer, "slave")
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}

// screen collects what a terminal shows.
type screen struct {
	*testing.T
	master *os.File
	shown  chan string
}

func newScreen(t *testing.T, master *os.File) *screen {
	s := &screen{t, master, make(chan string, 1)}
	s.shown <- ""
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			s.shown <- <-s.shown + string(b[:n])
			if err != nil {
				return
			}
		}
	}()
	return s
}

// types writes as a keyboard does.
func (s *screen) types(keys string) {
	s.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		s.Fatal(err)
	}
}

// shows waits until a text stands behind the one waited for last.
func (s *screen) shows(want string) {
	s.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		got := <-s.shown
		if _, after, ok := strings.Cut(got, want); ok {
			s.shown <- after
			return
		}
		s.shown <- got
		if time.Now().After(deadline) {
			s.Fatalf("%q is not shown: %q", want, got)
		}
	}
}

// A shell in a kept sandbox, from a real terminal: what is typed and shown, its
// size and its changes, Ctrl-C, the exit code, and a terminal that is as before.
func TestShellInTerminal(t *testing.T) {
	p := newPlace(t)
	p.write(t, "Dockerfile", "FROM example.com/base:1\n")
	p.write(t, ".ci.yml", "version: 1\nimages: {web: {build: ., tests: {it: {command: [sh, -c, 'echo found > /tmp/it; exit 1']}}}}\n")
	if run := p.run(t, "--keep-failed"); run.Images[0].Tests[0].KeptUntil == nil {
		t.Fatalf("not kept: %+v", run)
	}
	t.Cleanup(func() { p.must(t, "shell", "--rm", "last"); p.settled(t) })
	shellInTerminal(t, p.slipway("shell", "last/web/it"), "web/it as it was left; it ran: sh -c echo found > /tmp/it; exit 1")
}

// shellInTerminal holds a shell in a test that has left /tmp/it to what a terminal does.
func shellInTerminal(t *testing.T, cmd *exec.Cmd, greeting string) {
	t.Helper()
	master, slave := hostTerminal(t)
	size := func(rows, cols uint16) {
		if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
			t.Fatal(err)
		}
	}
	size(33, 99)
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "TERM=vt100")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := newScreen(t, master)
	s.shows(greeting)
	s.shows("# ")
	s.types("cat /tmp/it; echo $TERM; busybox stty size\r")
	s.shows("found")
	s.shows("vt100")
	s.shows("33 99")
	s.shows("# ")
	size(20, 50)
	s.types("while [ \"$(busybox stty size)\" != '20 50' ]; do :; done; echo small''er\r")
	s.shows("smaller")
	s.shows("# ")
	s.types("sh -c \"echo rea''dy; exec cat\"\r")
	s.shows("ready")
	s.types("echo-by-cat\r")
	s.shows("echo-by-cat") // the terminal's own
	s.shows("echo-by-cat") // cat's
	s.types("\x03")
	s.shows("# ") // what is typed before it asks is lost
	s.types("echo code $((100 + $?))\r")
	s.shows("code 230")
	s.shows("# ")
	s.types("exit 9\r")
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 9 {
		t.Errorf("got %v, want exit code 9", err)
	}
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil || after.Lflag != before.Lflag || after.Iflag != before.Iflag || after.Oflag != before.Oflag {
		t.Errorf("the terminal is not as it was: %v, %+v, was %+v", err, after, before)
	}
}

// A client that is killed leaves nothing running, and what is kept stays.
func TestShellKilled(t *testing.T) {
	p := newPlace(t)
	p.write(t, "Dockerfile", "FROM example.com/base:1\n")
	p.write(t, ".ci.yml", "version: 1\nimages: {web: {build: ., tests: {it: {command: ['false']}}}}\n")
	p.run(t, "--keep-failed")
	t.Cleanup(func() { p.must(t, "shell", "--rm", "last"); p.settled(t) })
	cmd := p.slipway("shell", "last/web/it", "--", "sh", "-c", "echo $$ > /tmp/pid; exec sleep 600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := func(script string) string { return string(p.must(t, "shell", "last/web/it", "--", "sh", "-c", script)) }
	for in("cat /tmp/pid 2>/dev/null; true") == "" {
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for in("[ -e /proc/$(cat /tmp/pid) ] && echo lives; true") != "" {
	}
}
