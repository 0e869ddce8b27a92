package git

import (
	"bytes"
	"maps"
	"path"
	"slices"
	"strings"
)

// attributes are what .gitattributes files say of paths (gitattributes(5)): those
// of a directory and of the ones above it. Of patterns they know what path.Match
// does, and **.
type attributes struct {
	above  *attributes
	dir    string // that the file lies in; "" is the top
	lines  []attributeLine
	macros map[string][]attribute // of the top, and git's own
}

// attributeLine is a pattern with what it sets.
type attributeLine struct {
	pattern []string // its segments
	anyDir  bool     // it is held against the last segment alone
	sets    []attribute
}

// attribute is a name with a state: "set", "unset", "unspecified", or a value behind "=".
type attribute struct{ name, state string }

// Bounds that git has: what is longer it does not read either.
const (
	maxAttributes    = 100 << 20
	maxAttributeLine = 2048
)

// below reads the file of a directory; the top's may define macros.
func (a *attributes) below(dir string, text []byte) *attributes {
	out := &attributes{above: a, dir: dir, macros: a.known()}
	if len(text) > maxAttributes {
		return out
	}
	for line := range bytes.Lines(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))) {
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' || len(line) > maxAttributeLine {
			continue
		}
		pattern, rest := firstField(string(line))
		var sets []attribute
		for word := range strings.FieldsSeq(rest) {
			sets = append(sets, attributeOf(word))
		}
		if name, isMacro := strings.CutPrefix(pattern, "[attr]"); isMacro {
			if dir == "" {
				out.macros[name] = sets
			}
			continue
		}
		if l, ok := attributePattern(pattern); ok {
			l.sets = sets
			out.lines = append(out.lines, l)
		}
	}
	return out
}

func (a *attributes) known() map[string][]attribute {
	if a == nil {
		return map[string][]attribute{"binary": {{"diff", "unset"}, {"merge", "unset"}, {"text", "unset"}}}
	}
	return maps.Clone(a.macros)
}

// firstField is the pattern of a line, which may stand in quotes as C has them, and the rest.
func firstField(line string) (field, rest string) {
	for i := 1; strings.HasPrefix(line, `"`) && i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case '"':
			if field, ok := unquoteC(line[1:i]); ok {
				return field, line[i+1:]
			}
			i = len(line)
		}
	}
	if i := strings.IndexAny(line, " \t\r"); i >= 0 {
		return line[:i], line[i:]
	}
	return line, ""
}

// unquoteC reads what stands between quotes of C: \n and the like, \" \\, and octal bytes.
func unquoteC(s string) (string, bool) {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			return "", false
		}
		if at := strings.IndexByte(`abfnrtv"\`, s[i]); at >= 0 {
			out.WriteByte("\a\b\f\n\r\t\v\"\\"[at])
			continue
		}
		if i+3 > len(s) || strings.Trim(s[i:i+3], "01234567") != "" || s[i] > '3' {
			return "", false
		}
		out.WriteByte((s[i]-'0')<<6 | (s[i+1]-'0')<<3 | (s[i+2] - '0'))
		i += 2
	}
	return out.String(), true
}

func attributeOf(word string) attribute {
	if name, ok := strings.CutPrefix(word, "-"); ok {
		return attribute{name, "unset"}
	}
	if name, ok := strings.CutPrefix(word, "!"); ok {
		return attribute{name, "unspecified"}
	}
	if name, value, ok := strings.Cut(word, "="); ok {
		return attribute{name, "=" + value}
	}
	return attribute{word, "set"}
}

// attributePattern reads a pattern. One that excludes, or that means directories
// alone, matches no file.
func attributePattern(p string) (l attributeLine, ok bool) {
	if p == "" || strings.HasPrefix(p, "!") || strings.HasSuffix(p, "/") {
		return l, false
	}
	l.anyDir = !strings.Contains(p, "/")
	l.pattern = strings.Split(letters(goClasses(strings.TrimPrefix(p, "/"))), "/")
	return l, true
}

// goClasses writes the classes of a pattern as path.Match wants them: ^ for !, and
// a bracket that comes first, and is no end, behind a backslash.
func goClasses(p string) string {
	var out strings.Builder
	inside := false
	for i := 0; i < len(p); i++ {
		out.WriteByte(p[i])
		switch {
		case p[i] == ']':
			inside = false
		case p[i] == '\\' && i+1 < len(p):
			i++
			out.WriteByte(p[i])
		case p[i] == '[' && !inside:
			inside = true
			if i+1 < len(p) && (p[i+1] == '!' || p[i+1] == '^') {
				i++
				out.WriteByte('^')
			}
			if i+1 < len(p) && p[i+1] == ']' {
				i++
				out.WriteString(`\]`)
			}
		}
	}
	return out.String()
}

// letters makes a letter of each byte: to git a letter is a byte.
func letters(s string) string {
	out := make([]rune, len(s))
	for i := range len(s) {
		out[i] = rune(s[i])
	}
	return string(out)
}

// of gives the states of the attributes of a path, as git finds them: what stands
// nearest to the path, and last, counts.
func (a *attributes) of(name string) map[string]string {
	states := map[string]string{}
	if a == nil {
		return states
	}
	var fill func(sets []attribute)
	fill = func(sets []attribute) {
		for _, s := range slices.Backward(sets) {
			if _, known := states[s.name]; known {
				continue
			}
			states[s.name] = s.state
			if s.state == "set" {
				fill(a.macros[s.name])
			}
		}
	}
	for at := a; at != nil; at = at.above {
		rel := letters(strings.TrimPrefix(strings.TrimPrefix(name, at.dir), "/"))
		for _, l := range slices.Backward(at.lines) {
			if l.matches(rel) {
				fill(l.sets)
			}
		}
	}
	return states
}

func (l attributeLine) matches(rel string) bool {
	if l.anyDir {
		ok, err := path.Match(l.pattern[0], path.Base(rel))
		return ok && err == nil
	}
	return segments(l.pattern, strings.Split(rel, "/"))
}

// segments matches a pattern segment by segment; ** stands for any number of them,
// at the end for one at least.
func segments(pattern, name []string) bool {
	if len(pattern) == 0 {
		return len(name) == 0
	}
	if pattern[0] == "**" {
		if len(pattern) == 1 {
			return len(name) > 0
		}
		for i := range len(name) + 1 {
			if segments(pattern[1:], name[i:]) {
				return true
			}
		}
		return false
	}
	if len(name) == 0 {
		return false
	}
	ok, err := path.Match(pattern[0], name[0])
	return ok && err == nil && segments(pattern[1:], name[1:])
}
