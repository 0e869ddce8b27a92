package main

import (
	"bufio"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// address puts an address of the loopback where nobody listens into $ADDRESS.
func address(ts *testscript.TestScript, _ bool, _ []string) {
	at, err := freeAddress()
	ts.Check(err)
	ts.Setenv("ADDRESS", at)
}

// ready waits until what was started in the background answers at $ADDRESS.
func ready(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(answers("http://" + ts.Getenv("ADDRESS") + "/"))
}

// capture puts what a command has printed, as the group of an expression finds it,
// into a variable: capture NAME REGEXP.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if found == nil {
		ts.Fatalf("it did not print %s", args[1])
	}
	ts.Setenv(args[0], found[1])
}

// What a command of this machine has begun a server that is stopped lets end, as it does runs.
func TestServeLetsCommandsEnd(t *testing.T) {
	v := newServed(t)
	v.write(t, "Dockerfile", "FROM example.com/base:1\nRUN sleep 3\nCMD [\"sleep\", \"1000\"]\n")
	v.start(t)
	cmd := v.slipway("up", v.dir)
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.must(t, "supervise", "stop") })
	lines := bufio.NewScanner(said)
	for lines.Scan() && !strings.Contains(lines.Text(), "RUN sleep 3") {
	}
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d\n%s", code, v.said())
	}
	var rest strings.Builder
	for lines.Scan() {
		rest.WriteString(lines.Text() + "\n")
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(rest.String(), "web is up") {
		t.Errorf("%v\n%s", err, rest.String())
	}
}
