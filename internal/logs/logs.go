// Package logs keeps what tasks say, line by line with sequence numbers, and lets
// any number of readers follow while it is written.
//
//	l := logs.Open(dir, logs.Limits{})
//	w, err := l.Writer(task)           // an io.WriteCloser; Close ends the log
//	for line, err := range l.Follow(ctx, task, 1) { … }
//
// Lines are kept as they came, with their colors (ANSI) and without the line end.
// A line that is too long is cut and marked, and so is a log that is too large. A
// writer that was killed leaves whole lines: what is torn at the end is cut off by
// the next Writer, which goes on with the next number, and not seen by readers.
//
// It refuses to hide secrets: write through package mask. It refuses to lose
// lines silently: where a file is damaged, a reader gets a Line that says how many
// are missing. It refuses to wait for readers: a slow one reads from the file.
package logs

import (
	"encoding/binary"
	"hash/crc32"
	"net/url"
	"path/filepath"
	"time"
)

// Limits bound what is kept. Zero fields mean the defaults.
type Limits struct {
	Line int   // bytes of one line; 64 KiB
	Task int64 // bytes of the lines of one task; 64 MiB
}

// Log is the directory of the logs of one run.
type Log struct {
	dir    string
	limits Limits
}

// Open names a directory, which the first Writer makes.
func Open(dir string, limits Limits) *Log {
	if limits.Line <= 0 {
		limits.Line = 64 << 10
	}
	if limits.Task <= 0 {
		limits.Task = 64 << 20
	}
	return &Log{dir, limits}
}

// Line is one line of a log.
type Line struct {
	Seq  int64     // from 1, without holes
	Time time.Time // when its end was written, to the millisecond
	Text []byte    // without the line end; valid until the next line is asked for
	// Gap counts lines that cannot be read any more; Seq is the first of them, and
	// there is no Text.
	Gap int64
}

func (l *Log) path(task string) string {
	return filepath.Join(l.dir, url.PathEscape(task)+".lines")
}

// A record is a header and the text of one line. The sum is over what follows it.
//
//	sum     4 bytes, CRC-32C
//	size    4 bytes, of the text
//	seq     8 bytes
//	time    8 bytes, milliseconds since 1970
//
// All numbers are little-endian. The record whose size is ended ends the log.
const header = 24

const ended = 0xffffffff

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendRecord adds a record to b.
func appendRecord(b []byte, size uint32, seq int64, at time.Time, text []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, size)
	b = binary.LittleEndian.AppendUint64(b, uint64(seq))
	b = binary.LittleEndian.AppendUint64(b, uint64(at.UnixMilli()))
	b = append(b, text...)
	binary.LittleEndian.PutUint32(b[start:], crc32.Checksum(b[start+4:], castagnoli))
	return b
}
