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
	"unicode/utf8"

	"slipway/pipeline"
)

// Line is one of a log. Seq counts from 1 without a gap.
type Line struct {
	Seq  int64     `json:"seq"`
	At   time.Time `json:"at,omitzero"`
	Task string    `json:"task,omitempty"`
	Step string    `json:"step,omitempty"` // within the task
	Text string    `json:"text"`
	More bool      `json:"more,omitempty"` // the line goes on in the next of this step
	// Missing: the log has been damaged, and this stands for so many lines that it
	// does not have any more, up to Seq.
	Missing int64 `json:"missing,omitempty"`
}

// String is the line as people read it.
func (n Line) String() string {
	if n.Task == "" {
		return n.Text
	}
	return n.Task + " | " + n.Text
}

// Bounds of a log. What is over them is not kept, and a line says so.
const (
	maxLine = 16 << 10  // bytes of Text; a longer line comes in pieces
	maxText = 1 << 20   // bytes of all pieces of a line
	maxLog  = 256 << 20 // bytes of a file, but for what slipway says itself
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
	begun   map[string]*begun // lines that have not ended, by step
	tasks   map[string]string // of steps
	ended   map[string]bool   // steps
	flushed chan struct{}
	stop    chan struct{}
	more    chan struct{}           // there is something to flush
	told    func()                  // of what can be read since
	news    func(pipeline.Progress) // hears all that Progress does; nil: nobody does
}

// begun is a line that has not ended.
type begun struct {
	text []byte // that is not written yet
	sent int    // bytes that are
	cut  int64  // bytes that will not be
}

// NewLog makes the file anew. told is called when there is more to read in it.
func NewLog(path string, told func()) (*Log, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("keep the log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep the log: %w", err)
	}
	l := &Log{
		f: f, w: bufio.NewWriterSize(f, 64<<10), begun: map[string]*begun{}, tasks: map[string]string{}, ended: map[string]bool{},
		flushed: make(chan struct{}), stop: make(chan struct{}), more: make(chan struct{}, 1), told: told,
	}
	go l.flushing()
	return l, nil
}

// together is how long lines are collected that come soon after others.
const together = 50 * time.Millisecond

// flushing lets readers see a line at once, and many together.
func (l *Log) flushing() {
	defer close(l.flushed)
	for {
		select {
		case <-l.stop:
			return
		case <-l.more:
		}
		l.mu.Lock()
		l.note(l.w.Flush())
		l.mu.Unlock()
		l.told()
		select {
		case <-l.stop:
			return
		case <-time.After(together):
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
	l.told()
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
	if l.news != nil {
		l.news(p)
	}
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
	for data := g.Data; len(data) > 0; {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			l.add(g.Step, data)
			return
		}
		l.add(g.Step, data[:i])
		l.rest(g.Step)
		data = data[i+1:]
	}
}

// add is more of a line of a step.
func (l *Log) add(step string, data []byte) {
	b := l.begun[step]
	if b == nil {
		b = &begun{}
		l.begun[step] = b
	}
	for len(data) > 0 {
		if b.sent >= maxText {
			b.cut += int64(len(data))
			return
		}
		if len(b.text) == maxLine {
			n := maxLine
			if !utf8.RuneStart(data[0]) { // it is cut before a character, not within
				for n--; n > maxLine-utf8.UTFMax && !utf8.RuneStart(b.text[n]); n-- {
				}
			}
			l.line(Line{Task: l.tasks[step], Step: step, Text: string(b.text[:n]), More: true})
			b.text, b.sent = append(b.text[:0], b.text[n:]...), b.sent+n
		}
		n := min(len(data), maxLine-len(b.text))
		b.text, data = append(b.text, data[:n]...), data[n:]
	}
}

// rest ends the line that a step has begun.
func (l *Log) rest(step string) {
	b := l.begun[step]
	if b == nil {
		return
	}
	if b.cut > 0 {
		b.text = fmt.Appendf(b.text, "[slipway: the line is cut here, %d bytes more]", b.cut)
	}
	l.line(Line{Task: l.tasks[step], Step: step, Text: strings.TrimSuffix(string(b.text), "\r")})
	delete(l.begun, step)
}

func (l *Log) line(n Line) {
	if l.full && n.Step != "" {
		return
	}
	l.seq++
	n.Seq, n.At = l.seq, time.Now().UTC()
	n.Text = strings.ToValidUTF8(n.Text, "\uFFFD")
	if l.size > maxLog && !l.full {
		l.full = true
		n.Text, n.More = fmt.Sprintf("[slipway: the log is cut here, after %d MiB]", maxLog>>20), false
	}
	data, err := json.Marshal(n)
	if err == nil {
		l.size += int64(len(data)) + 1
		_, err = l.w.Write(append(data, '\n'))
	}
	l.note(err)
	nudge(l.more)
}
