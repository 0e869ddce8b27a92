package logs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/internal/logs"
)

func writer(t testing.TB, l *logs.Log) *logs.Writer {
	t.Helper()
	w, err := l.Writer("web/unit")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// texts reads what is there, each line with its number.
func texts(t *testing.T, l *logs.Log, from int64) string {
	t.Helper()
	var out strings.Builder
	for line, err := range l.Read("web/unit", from) {
		if err != nil {
			t.Fatal(err)
		}
		if line.Gap > 0 {
			fmt.Fprintf(&out, "%d-%d lost|", line.Seq, line.Seq+line.Gap-1)
			continue
		}
		fmt.Fprintf(&out, "%d %s|", line.Seq, line.Text)
	}
	return out.String()
}

func TestLines(t *testing.T) {
	l := logs.Open(t.TempDir(), logs.Limits{Line: 20})
	w := writer(t, l)
	for _, piece := range []string{"one\ntw", "o\n\n\x1b[31mred\x1b[0m\n", strings.Repeat("x", 50), "y\nno end"} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	const first = "1 one|2 two|3 |4 \x1b[31mred\x1b[0m|5 xxxxxxxxxxxxxxxxxxxx [slipway: line cut here, 31 bytes more]|"
	if got := texts(t, l, 1); got != first {
		t.Errorf("while it is written: %q", got)
	}
	if _, err := l.Writer("web/unit"); err == nil {
		t.Error("two write the same log")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, l, 1); got != first+"6 no end|" {
		t.Errorf("at the end: %q", got)
	}
	if got := texts(t, l, 6); got != "6 no end|" {
		t.Errorf("from 6: %q", got)
	}
	w = writer(t, l) // it goes on
	if _, err := w.Write([]byte("more\n")); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, l, 6); got != "6 no end|7 more|" {
		t.Errorf("later: %q", got)
	}
	for _, err := range l.Read("other", 1) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

func TestLimitOfATask(t *testing.T) {
	l := logs.Open(t.TempDir(), logs.Limits{Task: 10})
	for range 2 {
		w := writer(t, l)
		for range 10 {
			if _, err := w.Write([]byte("1234\n")); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := texts(t, l, 1); got != "1 1234|2 1234|3 [slipway: log cut here, after 10 bytes]|" {
		t.Errorf("%q", got)
	}
}

// TestTorn cuts a log at every byte: whole lines stay, and a writer goes on behind them.
func TestTorn(t *testing.T) {
	dir := t.TempDir()
	l := logs.Open(dir, logs.Limits{})
	w := writer(t, l)
	for i := range 3 {
		fmt.Fprintf(w, "line %d\n", i+1)
	}
	file := filepath.Join(dir, "web%2Funit.lines")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	record := len(data) / 3
	for n := range data {
		if err := os.WriteFile(file, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		want := ""
		for i := range n / record {
			want += fmt.Sprintf("%d line %d|", i+1, i+1)
		}
		if got := texts(t, l, 1); got != want {
			t.Fatalf("cut at %d: %q, want %q", n, got, want)
		}
		w := writer(t, l)
		fmt.Fprintln(w, "after")
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := texts(t, l, 1); got != want+fmt.Sprintf("%d after|", n/record+1) {
			t.Fatalf("cut at %d, and gone on: %q", n, got)
		}
	}
	// Damage in the middle is told.
	for at := record; at < 2*record; at++ {
		bad := bytes.Clone(data)
		bad[at] ^= 0x55
		if at-record >= 4 && at-record < 8 {
			continue // its size may now reach beyond the end, as if it were being written
		}
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := texts(t, l, 1); got != "1 line 1|2-2 lost|3 line 3|" {
			t.Fatalf("damaged at %d: %q", at, got)
		}
	}
}

// TestFollow: several readers, some late, see every line once and in order.
func TestFollow(t *testing.T) {
	l := logs.Open(t.TempDir(), logs.Limits{})
	const lines = 30_000
	var group sync.WaitGroup
	for reader := range 4 {
		group.Go(func() {
			next := int64(1 + reader*1000)
			for line, err := range l.Follow(t.Context(), "web/unit", next) {
				if err != nil || line.Seq != next || string(line.Text) != fmt.Sprint("line ", next) {
					t.Errorf("reader %d: %d %q, %v; want %d", reader, line.Seq, line.Text, err, next)
					return
				}
				next++
			}
			if next != lines+1 {
				t.Errorf("reader %d ended at %d", reader, next)
			}
		})
	}
	w := writer(t, l)
	for i := range lines {
		if _, err := fmt.Fprintf(w, "line %d\n", i+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("gone home"))
	defer cancel()
	var last error
	for _, err := range l.Follow(ctx, "other", 1) {
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), "gone home") {
		t.Error(last)
	}
}

// TestEndlessLine: a line of 64 MiB (1 GiB in a long trial) takes no more memory than its limit.
func TestEndlessLine(t *testing.T) {
	l := logs.Open(t.TempDir(), logs.Limits{})
	w := writer(t, l)
	pieces := 64
	if os.Getenv("SLIPWAY_SOAK") != "" {
		pieces = 1024
	}
	piece := bytes.Repeat([]byte("x"), 1<<20)
	for range pieces {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write([]byte("\nnext\n")); err != nil {
		t.Fatal(err)
	}
	got := texts(t, l, 1)
	want := fmt.Sprintf("[slipway: line cut here, %d bytes more]|2 next|", pieces<<20-64<<10)
	if len(got) > 66<<10 || !strings.HasSuffix(got, want) {
		t.Errorf("%d bytes, ending in %q", len(got), got[max(0, len(got)-100):])
	}
}

func BenchmarkWriter(b *testing.B) {
	w := writer(b, logs.Open(b.TempDir(), logs.Limits{Task: 1 << 40}))
	for b.Loop() {
		if _, err := w.Write([]byte("2026-11-25T10:00:00Z INFO a line of a log as they are\n")); err != nil {
			b.Fatal(err)
		}
	}
}
