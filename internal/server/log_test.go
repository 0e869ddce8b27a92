package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/pipeline"
)

func soak() bool { return os.Getenv("SLIPWAY_SOAK") != "" }

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func says(l *server.Log, text []byte) {
	l.Progress(pipeline.Progress{Task: "web/unit", Logs: []pipeline.StepLog{{Step: "web/unit", Data: text}}})
}

// kept reads the lines of a file.
func kept(t *testing.T, path string) (all []server.Line) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	for text := range bytes.Lines(data) {
		var n server.Line
		must(t, json.Unmarshal(text, &n))
		all = append(all, n)
	}
	return all
}

func newLog(t *testing.T) (*server.Log, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lines.jsonl")
	l, err := server.NewLog(path, func() {})
	must(t, err)
	return l, path
}

// A line can be read as soon as its reader is told, while the log goes on.
func TestReadersAreTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lines.jsonl")
	told := make(chan struct{}, 1)
	l, err := server.NewLog(path, func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	must(t, err)
	for _, text := range []string{"one", "two"} {
		l.Say("", text)
		<-told
		if all := kept(t, path); all[len(all)-1].Text != text {
			t.Errorf("told before %q was there: %v", text, all)
		}
	}
	must(t, l.Close())
	<-told
}

func TestLines(t *testing.T) {
	l, path := newLog(t)
	for _, piece := range []string{"one\ntw", "o\r", "\n\n\x1b[31mred\x1b[0m\n", strings.Repeat("ä", 10_000), "\nno end"} {
		says(l, []byte(piece))
	}
	must(t, l.Close())
	var got []string
	for i, n := range kept(t, path) {
		if n.Seq != int64(i+1) {
			t.Errorf("line %d has number %d", i+1, n.Seq)
		}
		got = append(got, n.Text)
	}
	want := []string{"one", "two", "", "\x1b[31mred\x1b[0m", strings.Repeat("ä", 8192), strings.Repeat("ä", 10_000-8192), "no end"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q", got)
	}
}

// A character is not torn where a long line is cut in pieces.
func TestPiecesAreOfWholeCharacters(t *testing.T) {
	for shift := range 4 {
		l, path := newLog(t)
		text := strings.Repeat("x", shift) + strings.Repeat("🚢", 20_000)
		for at := 0; at < len(text); at += 1001 {
			says(l, []byte(text[at:min(len(text), at+1001)]))
		}
		must(t, l.Close())
		var got strings.Builder
		for _, n := range kept(t, path) {
			got.WriteString(n.Text)
		}
		if got.String() != text {
			t.Errorf("shifted by %d: it is not the same", shift)
		}
	}
}

// A line of 32 MiB (1 GiB in a long trial) is cut, says so, and stays in no memory;
// what comes behind it is there.
func TestEndlessLine(t *testing.T) {
	l, path := newLog(t)
	pieces := 32
	if soak() {
		pieces = 1024
	}
	piece := bytes.Repeat([]byte("x"), 1<<20)
	before, began := heap(), time.Now()
	for range pieces {
		says(l, piece)
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("it holds %d bytes", grown)
	}
	t.Logf("%d MiB in %v", pieces, time.Since(began))
	says(l, []byte("\nnext\n"))
	must(t, l.Close())
	all := kept(t, path)
	size := 0
	for _, n := range all[:len(all)-2] {
		if !n.More {
			t.Errorf("piece %d is not marked", n.Seq)
		}
		size += len(n.Text)
	}
	cut, next := all[len(all)-2], all[len(all)-1]
	text, mark, _ := strings.Cut(cut.Text, "[")
	if want := fmt.Sprintf("slipway: the line is cut here, %d bytes more]", pieces<<20-size-len(text)); mark != want || cut.More || next.Text != "next" {
		t.Errorf("in the end: %q, %q; want %q", mark, next.Text, want)
	}
}

// 20,000 lines (in a long trial 600,000, as 10,000 a second give in a minute) are
// followed while they are written, without a gap.
func TestManyLinesAreFollowed(t *testing.T) {
	w := newWorld(t)
	count := 20_000
	if soak() {
		count = 600_000
	}
	var took time.Duration
	w.serve(t, server.Options{}, func(_ context.Context, _ ledger.Run, l *server.Log) (ledger.End, error) {
		began := time.Now()
		for n := range count {
			says(l, fmt.Appendf(nil, "2026-11-25T10:00:00Z INFO line %d of a log as they are\n", n))
		}
		took = time.Since(began)
		return ledger.End{State: ledger.Passed}, nil
	})
	w.accepted(t, 1)
	id := w.until(t, "taken", func(r ledger.Run) bool { return r.State != ledger.Queued }).ID
	req, err := http.NewRequest(http.MethodGet, w.http.URL+"/api/v1/runs/"+id+"/logs", nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+w.token(t, ledger.Viewer))
	req.Header.Set("Accept", "text/event-stream")
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	var text bytes.Buffer
	_, err = text.ReadFrom(resp.Body)
	must(t, err)
	all := lines(t, text.String())
	for i, n := range all {
		if n.Seq != int64(i+1) || n.Missing > 0 {
			t.Fatalf("line %d: %+v", i+1, n)
		}
	}
	if len(all) != count {
		t.Errorf("%d lines of %d", len(all), count)
	}
	t.Logf("%d lines written in %v (%.0f/s), followed in %v", count, took, float64(count)/took.Seconds(), time.Since(began))
}

// TestFullLog: what a run says beyond the bound of a log is not kept, and the log
// says so; what slipway says in the end is there.
func TestFullLog(t *testing.T) {
	if !soak() {
		t.Skip("writes 256 MiB: make soak")
	}
	l, path := newLog(t)
	line := append(bytes.Repeat([]byte("x"), 1000), '\n')
	for range 300_000 {
		says(l, line)
	}
	l.Say("", "failed: in the end")
	must(t, l.Close())
	info, err := os.Stat(path)
	must(t, err)
	all := kept(t, path)
	if info.Size() > 257<<20 || all[len(all)-2].Text != "[slipway: the log is cut here, after 256 MiB]" || all[len(all)-1].Text != "failed: in the end" {
		t.Errorf("%d bytes; in the end: %+v", info.Size(), all[len(all)-2:])
	}
}

// TestDamagedLog: what is missing in a file, or torn, is told where it is.
func TestDamagedLog(t *testing.T) {
	w := newWorld(t)
	w.serve(t, server.Options{}, func(_ context.Context, _ ledger.Run, l *server.Log) (ledger.End, error) {
		for n := range 6 {
			l.Say("web/unit", fmt.Sprint("line ", n+1))
		}
		return ledger.End{State: ledger.Passed}, nil
	})
	token := w.token(t, ledger.Viewer)
	w.accepted(t, 1)
	run := w.until(t, "over", over)
	path := filepath.Join(w.dir, run.Record)
	whole, err := os.ReadFile(path)
	must(t, err)
	all := bytes.SplitAfter(whole, []byte("\n")) // the last is empty
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	zeros := make([]byte, 1<<20)
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"whole", whole, "1 2 3 4 5 6"},
		{"the first is missing", join(all[1:]...), "1- 2 3 4 5 6"},
		{"some are missing", join(all[0], all[4], all[5]), "1 4-3 5 6"},
		{"one is torn", join(all[0], all[1][:20], []byte("\n"), all[2], all[3], all[4], all[5]), "1 2- 3 4 5 6"},
		{"a sector is zeros", join(all[0], all[1], zeros, []byte("\n"), all[3], all[4], all[5]), "1 2 3- 4 5 6"},
		{"zeros up to another line", join(all[0], zeros[:512], all[2], all[3], all[4], all[5]), "1 3-2 4 5 6"},
		{"the end is torn", join(all[0], all[1], all[2][:20]), "1 2 3-"},
		{"the end is zeros", join(all[0], all[1], zeros), "1 2 3-"},
		{"nothing is there", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			must(t, os.WriteFile(path, c.file, 0o600))
			var got []string
			_, body := w.request(t, http.MethodGet, "/api/v1/runs/"+run.ID+"/logs", token)
			for _, n := range lines(t, body) {
				switch {
				case n.Missing == 1 && n.Text == "[slipway: a line is missing here]":
					got = append(got, fmt.Sprint(n.Seq, "-"))
				case n.Missing > 1 && n.Text == fmt.Sprintf("[slipway: %d lines are missing here]", n.Missing):
					got = append(got, fmt.Sprint(n.Seq, "-", n.Missing))
				case n.Text == fmt.Sprint("line ", n.Seq):
					got = append(got, fmt.Sprint(n.Seq))
				default:
					t.Errorf("%+v", n)
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
			_, events := w.request(t, http.MethodGet, "/api/v1/runs/"+run.ID+"/logs", token, "Accept", "text/event-stream")
			if len(lines(t, events)) != len(got) {
				t.Errorf("as events: %s", events)
			}
		})
	}
}
