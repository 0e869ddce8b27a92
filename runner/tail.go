package runner

import (
	"bytes"
	"strings"
	"sync"
)

// tailSize is how much of the end of what a service said is kept to be shown.
const tailSize = 16 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if extra := len(t.data) - tailSize; extra > tailSize {
		t.data = append(t.data[:0], t.data[extra:]...)
	}
	return len(p), nil
}

// lines are the last n lines, without the newline at the end.
func (t *tail) lines(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := strings.Split(string(bytes.TrimRight(t.data, "\n")), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
