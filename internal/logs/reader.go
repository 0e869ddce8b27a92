package logs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"
)

// state of the place that a reader is at.
type state int

const (
	whole   state = iota // a line was read
	open                 // nothing more yet, or not all of it
	damaged              // something that no Writer wrote
	over                 // the log has ended
)

// window is how much is read at once.
const window = 256 << 10

// reader reads records from a file that may still grow.
type reader struct {
	f      *os.File
	limits Limits
	at     int64  // of the next record, in the file
	seq    int64  // of the last line
	buf    []byte // of the file, from at; a part of mem
	mem    []byte
}

// fill reads until n bytes of the file are there from at; false: it has fewer.
func (r *reader) fill(n int) (bool, error) {
	if len(r.buf) >= n {
		return true, nil
	}
	have := len(r.buf)
	if len(r.mem) < max(n, window) {
		r.mem = make([]byte, max(n, window))
	}
	copy(r.mem, r.buf)
	m, err := r.f.ReadAt(r.mem[have:], r.at+int64(have))
	r.buf = r.mem[:have+m]
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return len(r.buf) >= n, nil
}

// longest is the size of the largest record that a Writer makes, with its mark.
func (r *reader) longest() int { return r.limits.Line + 128 }

// next reads a record. Where what should be one is none, but a later one is, it
// gives the gap between them; where nothing follows, the writer is in the middle,
// or was stopped there.
func (r *reader) next() (Line, state, error) {
	line, size, st, err := r.record(0)
	switch {
	case err == nil && st == damaged:
		return r.beyond()
	case err != nil || st != whole:
		r.buf = nil // what is torn may be written anew
		return line, st, err
	}
	r.take(size)
	r.seq = line.Seq
	return line, whole, nil
}

func (r *reader) take(n int) { r.at, r.buf = r.at+int64(n), r.buf[n:] }

// record reads the record that begins skip bytes further on, if there is one.
func (r *reader) record(skip int) (Line, int, state, error) {
	if ok, err := r.fill(skip + header); !ok || err != nil {
		return Line{}, 0, open, err
	}
	h := r.buf[skip:]
	size := binary.LittleEndian.Uint32(h[4:])
	n := int(size)
	if size == ended {
		n = 0
	}
	if n > r.longest() {
		return Line{}, 0, damaged, nil
	}
	if ok, err := r.fill(skip + header + n); !ok || err != nil {
		return Line{}, 0, open, err
	}
	h = r.buf[skip:]
	if crc32.Checksum(h[4:header+n], castagnoli) != binary.LittleEndian.Uint32(h) {
		return Line{}, 0, damaged, nil
	}
	line := Line{Seq: int64(binary.LittleEndian.Uint64(h[8:])), Time: time.UnixMilli(int64(binary.LittleEndian.Uint64(h[16:]))), Text: h[header : header+n]}
	if size == ended {
		return line, header, over, nil
	}
	return line, header + n, whole, nil
}

// beyond looks for a record after what is none.
func (r *reader) beyond() (Line, state, error) {
	for skip := 1; skip <= r.longest()+2*header; skip++ {
		line, _, st, err := r.record(skip)
		if err != nil {
			return Line{}, open, err
		}
		if len(r.buf) < skip+header {
			break // the end of the file
		}
		if st != whole && st != over || line.Seq <= r.seq && st == whole {
			continue
		}
		gap := line.Seq - r.seq - 1
		if st == over {
			gap++ // its number is that of the last line
		}
		r.take(skip)
		if gap <= 0 {
			return r.next()
		}
		first := r.seq + 1
		r.seq += gap
		return Line{Seq: first, Gap: gap}, whole, nil
	}
	r.buf = nil
	return Line{}, open, nil
}

// Read gives the lines of a task from a sequence number on that are there now.
// The error is an fs.ErrNotExist where there is no log.
func (l *Log) Read(task string, from int64) iter.Seq2[Line, error] {
	return l.lines(task, from, func(error) error { return errStop })
}

// followEvery is how long a line may wait to be seen: people do not see less.
const followEvery = 50 * time.Millisecond

// Follow gives the lines of a task from a sequence number on, and waits for more
// until the log ends or ctx does, which is then the error. It waits for a log that
// is not there yet, too.
func (l *Log) Follow(ctx context.Context, task string, from int64) iter.Seq2[Line, error] {
	tick := time.NewTimer(0)
	<-tick.C
	return l.lines(task, from, func(err error) error {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		tick.Reset(followEvery)
		select {
		case <-ctx.Done():
			tick.Stop()
			return context.Cause(ctx)
		case <-tick.C:
			return nil
		}
	})
}

var errStop = errors.New("that is all")

// lines gives lines, and asks wait what to do where there are no more of them yet.
func (l *Log) lines(task string, from int64, wait func(error) error) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		f, err := os.Open(l.path(task))
		for err != nil {
			stop := wait(err)
			if errors.Is(stop, errStop) {
				stop = err
			}
			if stop != nil {
				yield(Line{}, fmt.Errorf("read the log of %s: %w", task, stop))
				return
			}
			f, err = os.Open(l.path(task))
		}
		defer func() { _ = f.Close() }() // only read from
		r := &reader{f: f, limits: l.limits}
		for {
			line, st, err := r.next()
			switch {
			case err == nil && st == over:
				return
			case err == nil && st == open:
				if err = wait(nil); errors.Is(err, errStop) {
					return
				}
			case err == nil && line.Seq+max(line.Gap-1, 0) >= from && !yield(line, nil):
				return
			}
			if err != nil {
				yield(Line{}, fmt.Errorf("read the log of %s: %w", task, err))
				return
			}
		}
	}
}
