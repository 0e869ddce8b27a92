package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// maxLog is the size at which a container's log makes room: the file before it
// is kept as NAME.1, and the one before that goes.
const maxLog = 16 << 20

// logFile is what a container says, over all its starts.
type logFile struct {
	path string

	mu   sync.Mutex
	f    *os.File
	size int64
	end  []byte // of what this start said
}

func openLog(path string) (*logFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("keep its log: %w", err)
	}
	l := &logFile{path: path}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("keep its log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.f, l.size = f, info.Size()
	return nil
}

// endSize is how much of the end is kept to be shown with a failure.
const endSize = 8 << 10

// Write never fails: a container goes on when its log cannot be written.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = append(l.end, p...)
	if extra := len(l.end) - endSize; extra > endSize {
		l.end = append(l.end[:0], l.end[extra:]...)
	}
	if l.f == nil {
		return len(p), nil
	}
	if l.size > maxLog {
		_ = l.f.Close()
		if os.Rename(l.path, l.path+".1") != nil || l.open() != nil {
			l.f = nil
			return len(p), nil
		}
	}
	n, _ := l.f.Write(p)
	l.size += int64(n)
	return len(p), nil
}

// last are the last n lines of this start.
func (l *logFile) last(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(string(bytes.TrimRight(l.end, "\n")), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		_ = l.f.Close()
		l.f = nil
	}
}

// readLog gives the end of a container's log: at most max bytes, from a line's
// beginning, and the offset after it.
func readLog(path string, limit int64) (text []byte, offset int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	from := max(0, info.Size()-limit)
	text = make([]byte, info.Size()-from)
	n, err := f.ReadAt(text, from)
	text = text[:n]
	if from > 0 {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	if n > 0 {
		err = nil
	}
	return text, from + int64(n), err
}
