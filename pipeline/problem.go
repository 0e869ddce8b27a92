package pipeline

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is one thing wrong in a file a user wrote, at its place.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // 1-based
	Column  int    `json:"column"` // 1-based, in characters
	Message string `json:"message"`
}

func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Errors is everything found wrong in a file, in the file's order. Parse,
// Expand and ParseEnvironment return no other error; errors.As finds it.
type Errors []Problem

// Error gives one problem a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// maxProblems keeps a file that is wrong everywhere readable.
const maxProblems = 50

// position is a place in the file, 1-based.
type position struct{ line, column int }

// problems collects what is wrong. The same words at the same place are said
// once, because a matrix decodes the same lines for each combination.
type problems struct {
	file   string
	source []byte // to find a place inside a value
	list   []Problem
	seen   map[Problem]bool
	full   bool
}

func newProblems(file string, source []byte) *problems {
	return &problems{file: file, source: source, seen: map[Problem]bool{}}
}

func (p *problems) add(at position, format string, args ...any) {
	problem := Problem{File: p.file, Line: at.line, Column: at.column, Message: fmt.Sprintf(format, args...)}
	if p.seen[problem] {
		return
	}
	if len(p.list) == maxProblems {
		p.full = true
		return
	}
	p.seen[problem] = true
	at = p.within(at)
	problem.Line, problem.Column = at.line, at.column
	p.list = append(p.list, problem)
}

// within moves a place that yaml.v3 gives behind the end of the file (of a value
// that is not there) to the end of what is there.
func (p *problems) within(at position) position {
	lines := bytes.Split(p.source, []byte("\n"))
	if at.line > len(lines) {
		at = position{len(lines), math.MaxInt}
	}
	at.line = max(at.line, 1)
	width := utf8.RuneCount(bytes.TrimSuffix(lines[at.line-1], []byte("\r")))
	return position{at.line, min(max(at.column, 1), width+1)}
}

// inside is where text stands in the value that begins at at, or at itself
// where the value is written in another way than it reads.
func (p *problems) inside(at position, text string) position {
	start := 0
	for line := 1; line < at.line; line++ {
		end := bytes.IndexByte(p.source[start:], '\n')
		if end < 0 {
			return at
		}
		start += end + 1
	}
	skipped := 0
	for i := 1; i < at.column && start+skipped < len(p.source); i++ {
		_, size := utf8.DecodeRune(p.source[start+skipped:])
		skipped += size
	}
	found := bytes.Index(p.source[start+skipped:], []byte(text))
	const near = 4096
	if found < 0 || found > near {
		return at
	}
	before := p.source[start : start+skipped+found]
	if last := bytes.LastIndexByte(before, '\n'); last >= 0 {
		at.line += bytes.Count(before, []byte("\n"))
		before = before[last+1:]
	}
	return position{at.line, utf8.RuneCount(before) + 1}
}

// err is nil when nothing was added.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	list := slices.Clone(p.list)
	slices.SortStableFunc(list, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	if p.full {
		last := list[len(list)-1]
		last.Message = fmt.Sprintf("more than %d problems; mend these first", maxProblems)
		list = append(list, last)
	}
	return Errors(list)
}
