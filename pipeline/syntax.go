package pipeline

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// yaml.v3 gives syntax errors as text only, so the line has to be read from it.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

func syntaxError(err error, data []byte, errs *problems) {
	text := err.Error()
	match := yamlLine.FindStringSubmatch(text)
	text = strings.TrimPrefix(text, match[0])
	line, _ := strconv.Atoi(match[1]) // none: 0, and add makes it 1
	line = min(line, bytes.Count(data, []byte("\n"))+1)
	next := "mend the YAML"
	switch {
	case bytes.Contains(lineOf(data, line), []byte("\t")):
		next = "YAML wants spaces, not tabs, for indentation"
	case strings.Contains(text, "mapping values are not allowed"):
		next = `put quotes around text that has ": " in it, or check the indentation`
	case strings.Contains(text, "unknown anchor"):
		next = "an anchor (&name) stands before its alias (*name)"
	case strings.Contains(text, "cannot start any token"):
		next = `put quotes around text that begins with @, %% or a backtick`
	}
	errs.add(position{line, 1}, "not YAML: %s; "+next, text)
}

func lineOf(data []byte, line int) []byte {
	for i := 1; i < line; i++ {
		_, rest, found := bytes.Cut(data, []byte("\n"))
		if !found {
			return nil
		}
		data = rest
	}
	first, _, _ := bytes.Cut(data, []byte("\n"))
	return first
}

// unreadable finds the first byte that no YAML text holds.
func unreadable(data []byte) (at position, what string) {
	at = position{1, 1}
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && size == 1:
			return at, "a byte that is not UTF-8"
		case r < ' ' && r != '\n' && r != '\r' && r != '\t', r == 0x7f:
			return at, "a control character (" + strconv.QuoteRune(r) + ")"
		case r == '\r' && !bytes.HasPrefix(data, []byte("\r\n")), r == '\u0085', r == '\u2028', r == '\u2029':
			// YAML ends a line here and editors do not: places would not agree.
			return at, fmt.Sprintf("a line end that is neither LF nor CRLF (%U)", r)
		case r == '\n':
			at = position{at.line + 1, 0}
		}
		at.column++
		data = data[size:]
	}
	return at, ""
}
