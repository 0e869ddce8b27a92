package main

import (
	"regexp"

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
