package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxRecord is more than any line takes in a file: JSON writes a byte as six at most.
const maxRecord = 6*maxLine + 4096

// logReader reads the lines of a log's file, which may still grow. Lines that it
// finds to be missing or torn, as a disk or a killed machine leaves them, it tells of.
type logReader struct {
	in   *bufio.Reader
	last int64  // number of the last line
	part []byte // of a line whose end is not there yet
	torn bool   // something was read that is no line
	next *Line  // that was found behind a gap
}

func newLogReader(f io.Reader) *logReader {
	return &logReader{in: bufio.NewReaderSize(f, maxRecord)}
}

// line gives the next line, or in place of those that are missing one that says so.
// io.EOF: there is no more yet.
func (r *logReader) line() (n Line, err error) {
	if r.next != nil {
		n, r.next = *r.next, nil
		return n, nil
	}
	for {
		data, err := r.record()
		if err != nil {
			return n, err
		}
		n = Line{}
		if json.Unmarshal(data, &n) != nil || n.Seq <= r.last {
			r.torn = true
			continue
		}
		gap := n.Seq - r.last - 1
		r.last, r.torn = n.Seq, false
		if gap > 0 {
			behind := n
			r.next = &behind
			return missing(n.Seq-1, gap), nil
		}
		return n, nil
	}
}

// record gives what stands up to the next end of a line. What is longer than any
// line is read over, and torn is told of it.
func (r *logReader) record() ([]byte, error) {
	data, err := r.in.ReadSlice('\n')
	if len(r.part)+len(data) > maxRecord || errors.Is(err, bufio.ErrBufferFull) {
		r.part, r.torn = r.part[:0], true
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.in.ReadSlice('\n')
		}
		if err == nil {
			return nil, nil // no line: it counts as torn
		}
		return nil, err
	}
	r.part = append(r.part, data...)
	if err != nil {
		return nil, err
	}
	data, r.part = r.part, nil
	return data, nil
}

// end says what is missing at the end of a log to which nothing will be added.
func (r *logReader) end() (Line, bool) {
	if !r.torn && len(bytes.TrimSpace(r.part)) == 0 {
		return Line{}, false
	}
	r.part, r.torn = nil, false
	r.last++
	return missing(r.last, 1), true
}

// missing stands for the n lines up to a number.
func missing(last, n int64) Line {
	says := fmt.Sprintf("[slipway: %d lines are missing here]", n)
	if n == 1 {
		says = "[slipway: a line is missing here]"
	}
	return Line{Seq: last, Missing: n, Text: says}
}
