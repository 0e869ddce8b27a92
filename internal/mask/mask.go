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
	patterns []pattern
	window   int             // the length of the shortest pattern, at most widest
	longest  int             // the most bytes of text that one takes
	shift    [blocks]uint8   // how far to move on by the block at the window's end
	ending   map[int][]int32 // the patterns whose window ends in a block, by its hash
	starting map[int][]int32 // the patterns that begin with a block, by its hash
	short    map[string]bool // the first byte, and the first two, of any pattern
}

// pattern is one form of a secret.
type pattern struct {
	text  []byte
	wraps bool // programs that print it break lines in it
}

// most is how many bytes of text it takes at the most.
func (p pattern) most() int {
	if p.wraps {
		return len(p.text) + 2*(len(p.text)/minLine+1)
	}
	return len(p.text)
}

// match holds a pattern against the beginning of a text. n is how much of the text
// it takes, 0: none. open: the text ends before that is known.
func (p pattern) match(text []byte) (n int, open bool) {
	if !p.wraps {
		switch {
		case bytes.HasPrefix(text, p.text):
			return len(p.text), false
		default:
			return 0, bytes.HasPrefix(p.text, text)
		}
	}
	line := 0 // bytes since the last break
	for at := 0; at < len(p.text); {
		switch {
		case n == len(text):
			return 0, true
		case text[n] == p.text[at]:
			at++
			n++
			line++
		case line >= minLine && text[n] == '\n':
			n, line = n+1, 0
		case line >= minLine && text[n] == '\r' && n+1 == len(text):
			return 0, true
		case line >= minLine && text[n] == '\r' && text[n+1] == '\n':
			n, line = n+2, 0
		default:
			return 0, false
		}
	}
	return n, false
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
	m = &Mask{}
	seen := map[string]int{}
	for _, s := range secrets {
		s = bytes.TrimRight(s, "\r\n") // a file's last line end is no part of what is printed
		if len(s) < MinLength {
			if len(s) > 0 {
				short++
			}
			continue
		}
		for _, p := range forms(s) {
			i, known := seen[string(p.text)]
			switch {
			case known:
				m.patterns[i].wraps = m.patterns[i].wraps || p.wraps
			case len(p.text) >= MinLength:
				seen[string(p.text)] = len(m.patterns)
				m.patterns = append(m.patterns, p)
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
	m.window = widest
	for _, p := range m.patterns {
		m.window = min(m.window, len(p.text))
		m.longest = max(m.longest, p.most())
	}
	for i := range m.shift {
		m.shift[i] = uint8(m.window - block + 1)
	}
	m.ending, m.starting, m.short = map[int][]int32{}, map[int][]int32{}, map[string]bool{}
	for i, p := range m.patterns {
		t := p.text
		for end := block; end <= m.window; end++ {
			h := hash(t[end-3], t[end-2], t[end-1])
			m.shift[h] = min(m.shift[h], uint8(m.window-end))
		}
		h := hash(t[m.window-3], t[m.window-2], t[m.window-1])
		m.ending[h] = append(m.ending[h], int32(i))
		h = hash(t[0], t[1], t[2])
		m.starting[h] = append(m.starting[h], int32(i))
		m.short[string(t[:1])], m.short[string(t[:2])] = true, true
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
			if n, _ := m.patterns[i].match(text[start:]); start+n > max(end, start) {
				end = start + n // the longest
			}
		}
		if end > 0 {
			return start, end
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
		if len(rest) < block {
			if m.short[string(rest)] {
				return at
			}
			continue
		}
		for _, i := range m.starting[hash(rest[0], rest[1], rest[2])] {
			if _, open := m.patterns[i].match(rest); open {
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
