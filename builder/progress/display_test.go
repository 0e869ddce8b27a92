package progress

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/console"

	"slipway/pipeline"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(ms int) *time.Time {
	t := epoch.Add(time.Duration(ms) * time.Millisecond)
	return &t
}

func logAt(step string, ms int, data string) pipeline.Progress {
	return pipeline.Progress{Task: "api", Logs: []pipeline.StepLog{{Step: step, Data: []byte(data), Time: *at(ms)}}}
}

// pipelineStory is a build of three steps and two tests, one of them reused.
func pipelineStory() []pipeline.Progress {
	return []pipeline.Progress{
		{Task: "api", Steps: []pipeline.Step{{ID: "api@1", Name: "[1/3] FROM base", Started: at(0)}}},
		{Task: "api", Transfers: []pipeline.Transfer{{ID: "extracting", Step: "api@1", Current: 5, Total: 10, Started: at(10)}}},
		{Task: "api", Transfers: []pipeline.Transfer{{ID: "extracting", Step: "api@1", Current: 10, Total: 10, Started: at(10), Completed: at(110)}}},
		{Task: "api", Steps: []pipeline.Step{{ID: "api@1", Name: "[1/3] FROM base", Started: at(0), Completed: at(200)}}},
		{Task: "api", Steps: []pipeline.Step{{ID: "api@2", Name: "[2/3] COPY a b", Started: at(200), Completed: at(210), Cached: true}}},
		{Task: "api", Steps: []pipeline.Step{{ID: "api@3", Name: "[3/3] RUN make", Started: at(210)}}},
		logAt("api@3", 300, "cc -c a.c\ncc -"),
		logAt("api@3", 350, "o a a.o\n"),
		{Task: "api", Warnings: []pipeline.Warning{{Step: "api@3", Short: "JSONArgsRecommended", File: "Dockerfile", Line: 7}}},
		{Task: "api", Steps: []pipeline.Step{{ID: "api@3", Name: "[3/3] RUN make", Started: at(210), Completed: at(400)}}},
		{Task: "api/unit", Steps: []pipeline.Step{{ID: "api/unit", Name: "pytest -q", Started: at(400), Completed: at(401), Cached: true}}},
		{Task: "api/it", Steps: []pipeline.Step{{ID: "api/it", Name: "./it.sh", Started: at(410)}}},
		{Task: "api/it", Logs: []pipeline.StepLog{{Step: "api/it", Data: []byte("no newline at the end"), Time: *at(420)}}},
		{Task: "api/it", Steps: []pipeline.Step{{ID: "api/it", Name: "./it.sh", Started: at(410), Completed: at(500), Error: "exit code 3"}}},
	}
}

func TestPlain(t *testing.T) {
	for _, tc := range []struct {
		name  string
		story []pipeline.Progress
	}{
		{"pipeline", pipelineStory()},
		{"unfinished", []pipeline.Progress{
			{Task: "api", Steps: []pipeline.Step{{ID: "api@1", Name: "[1/1] RUN sleep", Started: at(0)}}},
			logAt("api@1", 10, "half a li"),
		}},
		{"unannounced", []pipeline.Progress{logAt("api@9", 10, "who am I\n")}},
		{"not begun", []pipeline.Progress{
			{Task: "api", Steps: []pipeline.Step{{ID: "api@1", Name: "queued"}}},
			logAt("api@1", 10, "early\n"),
			{Task: "api", Steps: []pipeline.Step{{ID: "api@1", Name: "queued", Started: at(20), Completed: at(30)}}},
		}},
		{"nothing", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var buf bytes.Buffer
			d, err := New(t.Context(), &buf, Options{Mode: Plain})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range tc.story {
				d.Write(p)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			golden(t, tc.name+".txt", buf.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", strings.ReplaceAll(name, " ", "_"))
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update rewrites it)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// Many goroutines, each with a step of its own: every line arrives once, in order.
func TestNothingIsLost(t *testing.T) {
	const tasks, lines = 8, 400
	var buf bytes.Buffer
	d, err := New(t.Context(), &buf, Options{Mode: Plain})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range tasks {
		wg.Go(func() {
			id := fmt.Sprintf("t%d", i)
			d.Write(pipeline.Progress{Task: id, Steps: []pipeline.Step{{ID: id, Name: "run", Started: at(0)}}})
			reused := make([]byte, 0, 64)
			for n := range lines {
				reused = fmt.Appendf(reused[:0], "<%s-%d>\n", id, n)
				// In two pieces, the first without its line end; the buffer is used again.
				d.Write(pipeline.Progress{Task: id, Logs: []pipeline.StepLog{{Step: id, Data: reused[:3], Time: *at(1)}}})
				d.Write(pipeline.Progress{Task: id, Logs: []pipeline.StepLog{{Step: id, Data: reused[3:], Time: *at(1)}}})
			}
		})
	}
	wg.Wait()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range tasks {
		pos := 0
		for n := range lines {
			want := fmt.Sprintf("<t%d-%d>", i, n)
			if c := strings.Count(buf.String(), want); c != 1 {
				t.Fatalf("%s is there %d times", want, c)
			}
			p := strings.Index(buf.String(), want)
			if p < pos {
				t.Fatalf("%s is out of order", want)
			}
			pos = p
		}
	}
}

// blocked is a writer that takes nothing until it is let go.
type blocked struct{ free chan struct{} }

func (b blocked) Write(p []byte) (int, error) { <-b.free; return len(p), nil }

func TestStuckWriterAndCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w := blocked{make(chan struct{})}
	d, err := New(ctx, w, Options{Mode: Plain})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 4 * queue {
			d.Write(logAt("api@1", 0, "x\n"))
		}
	}()
	cancel()
	<-done // a producer held by the terminal for ever would time the test out
	if err := d.Close(); err == nil || !strings.Contains(err.Error(), "takes no output") {
		t.Errorf("Close: %v", err)
	}
	close(w.free)
	<-d.drawn
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriteError(t *testing.T) {
	d, err := New(t.Context(), failing{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pipelineStory() {
		d.Write(p)
	}
	if err := d.Close(); err == nil || err.Error() != "disk full" {
		t.Errorf("Close: %v", err)
	}
	d.Write(pipelineStory()[0]) // after Close: nothing happens
	if err := d.Close(); err == nil {
		t.Error("a second Close forgot the error")
	}
}

func TestModes(t *testing.T) {
	var buf bytes.Buffer
	if _, err := New(t.Context(), &buf, Options{Mode: TTY}); err == nil {
		t.Error("tty on a buffer was accepted")
	}
	if _, err := New(t.Context(), &buf, Options{Mode: "loud"}); err == nil {
		t.Error("an unknown mode was accepted")
	}
	d, err := New(t.Context(), &buf, Options{Mode: Quiet})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pipelineStory() {
		d.Write(p)
	}
	if err := d.Close(); err != nil || buf.Len() != 0 {
		t.Errorf("quiet wrote %q, error %v", buf.String(), err)
	}
}

// onTerminal runs story on a pseudo-terminal and gives what a person's terminal got.
func onTerminal(t *testing.T, o Options, story []pipeline.Progress) string {
	t.Helper()
	master, name, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := master.Resize(console.WinSize{Width: 100, Height: 30}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = got.ReadFrom(master) // ends with EIO once the other side is closed
	}()
	d, err := New(t.Context(), tty, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range story {
		d.Write(p)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	tty.Close()
	<-read
	return got.String()
}

func TestTerminal(t *testing.T) {
	got := onTerminal(t, Options{}, pipelineStory())
	for _, want := range []string{
		"[+] Running", "(5/5) FINISHED", "=> [api] [1/3] FROM base", "=> CACHED [api] [2/3] COPY a b",
		"=> CACHED [api/unit] pytest -q", "=> ERROR [api/it] ./it.sh", "no newline at the end", "\x1b[34m", "\x1b[31m",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	got = onTerminal(t, Options{NoColor: true}, pipelineStory())
	if strings.Contains(got, "m => ") || strings.Contains(got, "\x1b[3") {
		t.Errorf("colours without colour:\n%q", got)
	}
	if !strings.Contains(got, "\x1b[?25l") || !strings.Contains(got, "FINISHED") {
		t.Errorf("not drawn live:\n%q", got)
	}
}

// A test that writes without end must not fill the memory of a live display.
func TestTerminalLongOutput(t *testing.T) {
	story := []pipeline.Progress{{Task: "api", Steps: []pipeline.Step{{ID: "s", Name: "yes", Started: at(0)}}}}
	line := strings.Repeat("y", 99) + "\n"
	for i := range 400 {
		story = append(story, logAt("s", i, strings.Repeat(line, 100)))
	}
	story = append(
		story,
		logAt("s", 401, "the last line\n"),
		pipeline.Progress{Task: "api", Steps: []pipeline.Step{{ID: "s", Name: "yes", Started: at(0), Completed: at(500), Error: "exit code 1"}}})
	got := onTerminal(t, Options{}, story)
	if !strings.Contains(got, "the last line") || !strings.Contains(got, "bytes not shown here") {
		t.Error("the end of the output or the remark is missing")
	}
	if len(got) > 2*inFull {
		t.Errorf("%d bytes were drawn", len(got))
	}
}

func TestFilter(t *testing.T) {
	in := "a\x1b[31mred\x1b[0m \x1b[?25l\x1b[2A\x1b[0Gup \x1b[38;5;1mx\x1b[mé\x1b\x1b[1mb\x1b"
	want := "ared \x1b[?25l\x1b[2A\x1b[0Gup xé\x1bb"
	for step := 1; step <= len(in); step++ {
		var f filter
		var got []byte
		for i := 0; i < len(in); i += step {
			got = append(got, f.strip([]byte(in[i:min(i+step, len(in))]))...)
		}
		if string(got) != want {
			t.Errorf("in pieces of %d: got %q", step, got)
		}
	}
}

// The display may not hold up a short run: no waiting for a clock tick.
func BenchmarkShortRun(b *testing.B) {
	story := pipelineStory()
	for b.Loop() {
		d, err := New(b.Context(), &bytes.Buffer{}, Options{})
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range story {
			d.Write(p)
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
