package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"slipway/pipeline"
)

// Line is one of a log. Seq counts from 1 without a gap.
type Line struct {
	Seq  int64     `json:"seq"`
	At   time.Time `json:"at"`
	Task string    `json:"task,omitempty"`
	Step string    `json:"step,omitempty"` // within the task
	Text string    `json:"text"`
	More bool      `json:"more,omitempty"` // the line goes on in the next of this step
}

// Bounds of a log.
const (
	maxLine = 16 << 10  // bytes of Text; a longer line is cut in pieces
	maxLog  = 256 << 20 // bytes of a file; the rest is not kept, and the last line says so
)

// Log keeps what a run says: a file of lines of JSON, in the order in which they came.
type Log struct {
	mu      sync.Mutex
	f       *os.File
	w       *bufio.Writer
	seq     int64
	size    int64
	full    bool
	err     error
	begun   map[string][]byte // lines that have not ended, by step
	tasks   map[string]string // of steps
	ended   map[string]bool   // steps
	flushed chan struct{}
	stop    chan struct{}
}

// NewLog makes the file anew.
func NewLog(path string) (*Log, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("keep the log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep the log: %w", err)
	}
	l := &Log{
		f: f, w: bufio.NewWriterSize(f, 64<<10), begun: map[string][]byte{}, tasks: map[string]string{}, ended: map[string]bool{},
		flushed: make(chan struct{}), stop: make(chan struct{}),
	}
	go l.flushing()
	return l, nil
}

// flushing lets readers see lines soon.
func (l *Log) flushing() {
	defer close(l.flushed)
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(100 * time.Millisecond):
			l.mu.Lock()
			l.note(l.w.Flush())
			l.mu.Unlock()
		}
	}
}

func (l *Log) note(err error) {
	if l.err == nil {
		l.err = err
	}
}

// Close writes the lines that have not ended, and the file to the disk.
func (l *Log) Close() error {
	close(l.stop)
	<-l.flushed
	l.mu.Lock()
	defer l.mu.Unlock()
	for step := range l.begun {
		l.rest(step)
	}
	l.note(l.w.Flush())
	l.note(l.f.Sync())
	return errors.Join(l.err, l.f.Close())
}

// Say writes a line of slipway's own. One that is about no task comes after all
// that tasks have said, lines that have not ended included.
func (l *Log) Say(task, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if task == "" {
		for step := range l.begun {
			l.rest(step)
		}
	}
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		l.line(Line{Task: task, Text: line})
	}
}

// Progress writes down what a run tells.
func (l *Log) Progress(p pipeline.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range p.Steps {
		l.step(p.Task, s)
	}
	for _, g := range p.Logs {
		l.tasks[g.Step] = p.Task
		l.output(g)
	}
	for _, w := range p.Warnings {
		l.line(Line{Task: p.Task, Text: "warning: " + w.Short})
	}
}

func (l *Log) step(task string, s pipeline.Step) {
	if _, known := l.tasks[s.ID]; !known && s.Started != nil {
		l.tasks[s.ID] = task
		l.line(Line{Task: task, Step: s.ID, Text: "» " + s.Name})
	}
	if s.Completed == nil || l.ended[s.ID] {
		return
	}
	l.ended[s.ID] = true
	l.rest(s.ID)
	switch {
	case s.Error != "":
		l.line(Line{Task: task, Step: s.ID, Text: "✗ " + s.Error})
	case s.Cached:
		l.line(Line{Task: task, Step: s.ID, Text: "✓ cached"})
	default:
		l.line(Line{Task: task, Step: s.ID, Text: "✓"})
	}
}

func (l *Log) output(g pipeline.StepLog) {
	data := append(l.begun[g.Step], g.Data...)
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 || i > maxLine {
			if len(data) <= maxLine {
				break
			}
			l.line(Line{Task: l.tasks[g.Step], Step: g.Step, Text: string(data[:maxLine]), More: true})
			data = data[maxLine:]
			continue
		}
		l.line(Line{Task: l.tasks[g.Step], Step: g.Step, Text: strings.TrimSuffix(string(data[:i]), "\r")})
		data = data[i+1:]
	}
	l.begun[g.Step] = bytes.Clone(data)
}

// rest writes a line that a step began and did not end.
func (l *Log) rest(step string) {
	if data := l.begun[step]; len(data) > 0 {
		l.line(Line{Task: l.tasks[step], Step: step, Text: string(data)})
	}
	delete(l.begun, step)
}

func (l *Log) line(n Line) {
	if l.full {
		return
	}
	l.seq++
	n.Seq, n.At = l.seq, time.Now().UTC()
	n.Text = strings.ToValidUTF8(n.Text, "\uFFFD")
	if l.size > maxLog {
		l.full = true
		n.Text, n.More = fmt.Sprintf("[slipway: the log is cut here, after %d MiB]", maxLog>>20), false
	}
	data, err := json.Marshal(n)
	if err == nil {
		l.size += int64(len(data)) + 1
		_, err = l.w.Write(append(data, '\n'))
	}
	l.note(err)
}
