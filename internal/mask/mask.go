// Package mask takes secrets out of text that is on its way to a log: as they
// are, line by line, and in the encodings that programs print them in.
//
// It refuses to read from anywhere, to keep text that cannot be the beginning of
// a secret, and to hide what is shorter than MinLength: three characters are
// found in any log, and hiding them would say what they are. It cannot hide what
// a program encrypts, compresses, or prints with something between the characters.
package mask

import (
	"bytes"
	"slices"
)

// Mark stands in the text for a secret.
const Mark = "***"

// MinLength is the length in bytes of the shortest secret that is hidden.
const MinLength = 4

// Mask finds secrets in text. It does not change, and is for any number of
// goroutines. The zero value finds nothing.
//
// It looks at the last block of a window of the length of the shortest pattern,
// and moves on by as much as no pattern has that block nearer to the window's end
// (S. Wu and U. Manber, A fast algorithm for multi-pattern searching, 1994).
type Mask struct {
	patterns [][]byte
	window   int             // the length of the shortest pattern, at most widest
	longest  int             // the length of the longest one
	shift    [blocks]uint8   // how far to move on by the block at the window's end
	ending   map[int][]int32 // the patterns whose window ends in a block, by its hash
	starting [256][]int32    // the patterns by their first byte
}

const (
	block  = 3       // bytes; windows are never shorter
	blocks = 1 << 15 // hashes of blocks: a table of bytes that fits the first cache
	widest = 24      // a wider window moves on further, but fewer blocks are in no pattern
)

func hash(a, b, c byte) int { return (int(a)<<10 ^ int(b)<<5 ^ int(c)) & (blocks - 1) }

// New prepares to find these secrets. Those too short to hide are counted, so
// that whoever gave them can be warned.
func New(secrets ...[]byte) (m *Mask, short int) {
	m = &Mask{ending: map[int][]int32{}}
	seen := map[string]bool{}
	for _, s := range secrets {
		s = bytes.TrimRight(s, "\r\n") // a file's last line end is no part of what is printed
		if len(s) < MinLength {
			if len(s) > 0 {
				short++
			}
			continue
		}
		for _, p := range forms(s) {
			if len(p) >= MinLength && !seen[p] {
				seen[p] = true
				m.patterns = append(m.patterns, []byte(p))
			}
		}
	}
	m.prepare()
	return m, short
}

func (m *Mask) prepare() {
	if len(m.patterns) == 0 {
		return
	}
	slices.SortStableFunc(m.patterns, func(a, b []byte) int { return len(b) - len(a) }) // the longest is found first
	m.longest = len(m.patterns[0])
	m.window = min(len(m.patterns[len(m.patterns)-1]), widest)
	for i := range m.shift {
		m.shift[i] = uint8(m.window - block + 1)
	}
	for i, p := range m.patterns {
		for end := block; end <= m.window; end++ {
			h := hash(p[end-3], p[end-2], p[end-1])
			m.shift[h] = min(m.shift[h], uint8(m.window-end))
		}
		h := hash(p[m.window-3], p[m.window-2], p[m.window-1])
		m.ending[h] = append(m.ending[h], int32(i))
		m.starting[p[0]] = append(m.starting[p[0]], int32(i))
	}
}

// next finds the first secret in text that begins at from or later. end is 0
// where there is none.
func (m *Mask) next(text []byte, from int) (start, end int) {
	for last := from + m.window - 1; last < len(text); {
		h := hash(text[last-2], text[last-1], text[last])
		if n := m.shift[h]; n > 0 {
			last += int(n)
			continue
		}
		start = last - m.window + 1
		for _, i := range m.ending[h] {
			if bytes.HasPrefix(text[start:], m.patterns[i]) {
				return start, start + len(m.patterns[i])
			}
		}
		last++
	}
	return len(text), 0
}

// undecided is where the end of a text begins that may be the beginning of a
// secret; its length where there is no such end.
func (m *Mask) undecided(text []byte) int {
	for at := max(0, len(text)-m.longest+1); at < len(text); at++ {
		rest := text[at:]
		for _, i := range m.starting[rest[0]] {
			p := m.patterns[i]
			if len(p) <= len(rest) {
				break // the others are no longer
			}
			if bytes.HasPrefix(p, rest) {
				return at
			}
		}
	}
	return len(text)
}

// Text hides the secrets in a text that is whole.
func (m *Mask) Text(text string) string {
	if m == nil || len(m.patterns) == 0 {
		return text
	}
	var out bytes.Buffer
	w := m.Writer(&out)
	_, _ = w.Write([]byte(text)) // into memory
	_ = w.Close()
	return out.String()
}
