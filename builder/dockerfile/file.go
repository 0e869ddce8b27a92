package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// SyntaxError is a Dockerfile that cannot be built as it is written: the
// user's fault, with the place.
type SyntaxError struct {
	File    string
	Line    int // 1-based; 0 when the fault has no one place
	Message string
}

// Error reads "Dockerfile:7: unknown instruction: COPPY (did you mean COPY?)".
func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Message)
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message)
}

// File is one parsed Dockerfile.
type File struct {
	name   string
	escape rune
	stages []instructions.Stage
	args   []instructions.ArgCommand // before the first FROM
}

// Parse reads a Dockerfile; name is used in errors only. A fault in it is a *SyntaxError.
func Parse(name string, data []byte) (*File, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, &SyntaxError{File: name, Message: "the Dockerfile is empty; begin it with a FROM line"}
	}
	tree, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, syntaxError(name, err)
	}
	stages, args, err := instructions.Parse(tree.AST, nil)
	if err != nil {
		return nil, syntaxError(name, err)
	}
	if len(stages) == 0 {
		return nil, &SyntaxError{File: name, Message: "there is no FROM line; begin with one"}
	}
	return &File{name: name, escape: tree.EscapeToken, stages: stages, args: args}, nil
}

// syntaxError keeps the deepest place BuildKit's parser names.
func syntaxError(name string, err error) *SyntaxError {
	out := &SyntaxError{File: name, Message: err.Error()}
	var at *parser.LocationError
	if errors.As(err, &at) {
		out.Line = firstLine(at.Locations...)
	}
	// The parser repeats the place in its words; it is in Line already.
	for _, prefix := range []string{"dockerfile parse error", "Dockerfile parse error"} {
		if rest, ok := strings.CutPrefix(out.Message, prefix); ok {
			if _, words, ok := strings.Cut(rest, ": "); ok {
				out.Message = words
			}
		}
	}
	return out
}

func firstLine(locations ...[]parser.Range) int {
	for _, ranges := range locations {
		for _, r := range ranges {
			if r.Start.Line > 0 {
				return r.Start.Line
			}
		}
	}
	return 0
}
