package runner_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the attempts into docs/isolation.md")

// TestIsolationPage holds the page to what the suite tries.
func TestIsolationPage(t *testing.T) {
	const path = "../docs/isolation.md"
	page, err := os.ReadFile(path)
	if os.IsNotExist(err) && os.Getenv(builtEnv) != "" {
		t.Skip("only the test program is here")
	}
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), "-update` -->\n")
	_, tail, end := strings.Cut(rest, "<!-- end of attempts")
	if !ok || !end {
		t.Fatalf("%s has lost its marks", path)
	}
	want := head + "-update` -->\n" + attemptsTable() + "<!-- end of attempts" + tail
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(page) != want {
		t.Errorf("%s is not what the suite tries; run this test with -update", path)
	}
}

func attemptsTable() string {
	var b strings.Builder
	b.WriteString("| attempt | as shipped | stopped by | without all of that |\n|---|---|---|---|\n")
	for _, a := range attempts(victim{}, false) {
		without := "succeeds"
		if a.mayLack {
			without = "succeeds, where the kernel has it"
		}
		fmt.Fprintf(&b, "| %s | stopped | %s | %s |\n", a.name, strings.Join(a.stoppedBy, ", "), without)
	}
	return b.String()
}
