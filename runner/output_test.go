package runner_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"slipway/pipeline"
)

// Two streams, a million lines: all of them, in the order they were written.
func TestOutputIsWholeAndInOrder(t *testing.T) {
	b := open(t)
	const lines = 1_000_000
	// One writer, alternating streams every 1000 lines.
	res, out := b.sh(fmt.Sprintf(`i=1; while [ $i -lt %d ]; do seq $i $((i+999)); seq $((i+1000)) $((i+1999)) >&2; i=$((i+2000)); done`, lines))
	if res.State != pipeline.Passed {
		t.Fatal(res)
	}
	want := 1
	for line := range strings.Lines(out) {
		if line != fmt.Sprintf("%d\n", want) {
			t.Fatalf("line %d is %q", want, line)
		}
		want++
	}
	if want != lines+1 || res.OutputSize != int64(len(out)) {
		t.Errorf("%d lines, %d bytes, size says %d", want-1, len(out), res.OutputSize)
	}
}

func TestHugeLine(t *testing.T) {
	b := open(t)
	res, out := b.sh(`head -c 20000000 /dev/zero; echo end`)
	if res.State != pipeline.Passed || len(out) != 20_000_004 || !strings.HasSuffix(out, "\x00end\n") {
		t.Errorf("%s, %d bytes", res.State, len(out))
	}
}

// Output beyond the limit is counted and dropped, and the test goes on.
func TestOutputLimit(t *testing.T) {
	b := open(t)
	res, out := b.sh(`head -c 100000000 /dev/zero; exit 7`)
	if res.ExitCode != 7 || res.OutputSize != 100_000_000 {
		t.Errorf("exit %d, size %d", res.ExitCode, res.OutputSize)
	}
	if len(out) > 65<<20 || !strings.Contains(out[64<<20:], "the test wrote 100000000 bytes") {
		t.Errorf("%d bytes kept, ends in %q", len(out), out[max(0, len(out)-120):])
	}
}

// What a test leaves running holds its output open; the test is over all the same.
func TestBackgroundProcess(t *testing.T) {
	b := open(t)
	begun := time.Now()
	res, out := b.sh(`setsid sh -c 'while true; do sleep 1; done' & sleep 300 & echo done`)
	if res.State != pipeline.Passed || out != "done\n" {
		t.Errorf("%s %q", res.State, out)
	}
	if time.Since(begun) > time.Minute {
		t.Error("it waited for what was left running")
	}
}

// A reader that fails does not end the test half way.
func TestBrokenReader(t *testing.T) {
	b := open(t)
	_, err := b.Test(context.Background(), b.request(pipeline.Test{Command: []string{"seq", "1000000"}}), failing{})
	if err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("got %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, fmt.Errorf("no space left on device") }
