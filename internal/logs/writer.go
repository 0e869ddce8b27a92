package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Writer appends to the log of one task. It is for any number of goroutines;
// nobody else may have a Writer of the same task.
type Writer struct {
	mu     sync.Mutex
	f      *os.File
	limits Limits
	seq    int64  // of the last line
	size   int64  // bytes of all lines
	line   []byte // that has no end yet
	cut    int64  // bytes of it that are over the limit
	full   bool   // the log is cut
	out    []byte // records of one Write
}

// Writer opens the log of a task to go on where it ends. It is
// an error where somebody else has it open.
func (l *Log) Writer(task string) (*Writer, error) {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep the log of %s: %w", task, err)
	}
	f, err := os.OpenFile(l.path(task), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep the log of %s: %w", task, err)
	}
	w := &Writer{f: f, limits: l.limits}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("the log of %s is being written by somebody else; wait until that ends: %w", task, err), f.Close())
	}
	if err := w.goOn(); err != nil {
		return nil, errors.Join(fmt.Errorf("go on with the log of %s: %w", task, err), f.Close())
	}
	return w, nil
}

// goOn finds the end of what is whole and cuts off the rest: a line that a crash
// tore, and the mark of an end, because there is more to come.
func (w *Writer) goOn() error {
	r := &reader{f: w.f, limits: w.limits}
	for {
		line, state, err := r.next()
		if err != nil {
			return err
		}
		if state != whole {
			break
		}
		w.seq = max(w.seq, line.Seq+max(line.Gap-1, 0))
		w.size += int64(len(line.Text))
	}
	w.full = w.size >= w.limits.Task
	if err := w.f.Truncate(r.at); err != nil {
		return err
	}
	_, err := w.f.Seek(r.at, io.SeekStart)
	return err
}

// Write takes all of p. What has no line end yet waits for it, in memory, up to
// the limit of a line.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return 0, os.ErrClosed
	}
	w.out = w.out[:0]
	now := time.Now()
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			w.add(rest)
			break
		}
		w.add(rest[:i])
		w.end(now)
		rest = rest[i+1:]
	}
	if len(w.out) == 0 {
		return len(p), nil
	}
	if _, err := w.f.Write(w.out); err != nil {
		return 0, fmt.Errorf("write %s: %w", w.f.Name(), err)
	}
	return len(p), nil
}

func (w *Writer) add(text []byte) {
	keep := text[:min(len(text), w.limits.Line-len(w.line))]
	w.line = append(w.line, keep...)
	w.cut += int64(len(text) - len(keep))
}

func (w *Writer) end(now time.Time) {
	if w.cut > 0 {
		w.line = fmt.Appendf(w.line, " [slipway: line cut here, %d bytes more]", w.cut)
	}
	text := w.line
	w.line, w.cut = w.line[:0], 0
	if w.full {
		return
	}
	if w.size += int64(len(text)); w.size > w.limits.Task {
		w.full = true
		text = fmt.Appendf(nil, "[slipway: log cut here, after %d bytes]", w.limits.Task)
	}
	w.seq++
	w.out = appendRecord(w.out, uint32(len(text)), w.seq, now, text)
}

// Close ends the log: whoever follows it gets the last line, with or without a
// line end, and then no more.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return os.ErrClosed
	}
	w.out = w.out[:0]
	if len(w.line) > 0 {
		w.end(time.Now())
	}
	w.out = appendRecord(w.out, ended, w.seq, time.Now(), nil)
	_, err := w.f.Write(w.out)
	if err == nil {
		err = w.f.Sync()
	}
	err = errors.Join(err, w.f.Close())
	w.f = nil
	return err
}
