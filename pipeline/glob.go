package pipeline

import (
	"errors"
	"regexp"
	"strings"
)

// A glob is written as in GitHub's filters: * and ? stop at a slash, ** does
// not, [a-z] is a set, a leading ! takes away what earlier globs let in, and a
// trailing slash means everything below.

// compileGlob makes the expression that matches what glob matches. Go's regexp
// is linear in the text, so no glob of a stranger takes long.
func compileGlob(glob string) (*regexp.Regexp, error) {
	if strings.HasSuffix(glob, "/") {
		glob += "**"
	}
	var out strings.Builder
	out.WriteString(`^`)
	for i := 0; i < len(glob); i++ {
		rest := glob[i:]
		switch c := glob[i]; {
		case strings.HasPrefix(rest, "**/") && (i == 0 || glob[i-1] == '/'):
			out.WriteString(`(?:.*/)?`)
			i += 2
		case strings.HasPrefix(rest, "**"):
			out.WriteString(`.*`)
			i++
		case c == '*':
			out.WriteString(`[^/]*`)
		case c == '?':
			out.WriteString(`[^/]`)
		case c == '[':
			end := strings.IndexByte(rest, ']')
			if end < 2 {
				return nil, errors.New("a bracket does not close")
			}
			out.WriteString(bracket(rest[1:end]))
			i += end
		case c == '\\' && len(rest) > 1:
			i++
			out.WriteString(regexp.QuoteMeta(glob[i : i+1]))
		default:
			out.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	out.WriteString(`$`)
	return regexp.Compile(`(?s)` + out.String())
}

func bracket(set string) string {
	negated := ""
	if set[0] == '!' || set[0] == '^' {
		negated, set = "^", set[1:]
	}
	return "[" + negated + strings.NewReplacer(`\`, `\\`, `[`, `\[`, `^`, `\^`, `&`, `\&`).Replace(set) + "]"
}

// globs is a list of globs as written.
type globs []string

// matcher says whether the last glob that matches a name lets it in.
func (g globs) matcher() func(name string) bool {
	type rule struct {
		re *regexp.Regexp
		in bool
	}
	var rules []rule
	for _, glob := range g {
		pattern, without := strings.CutPrefix(glob, "!")
		if re, err := compileGlob(pattern); err == nil { // the codec has refused what does not compile
			rules = append(rules, rule{re, !without})
		}
	}
	return func(name string) bool {
		in := false
		for _, r := range rules {
			if r.in != in && r.re.MatchString(name) {
				in = r.in
			}
		}
		return in
	}
}

// globCodec checks one glob.
var globCodec = scalar(shape{kind: "string", says: "glob", pattern: `^!?[^!]`}, isText, func(text string) (string, string) {
	bare := strings.TrimPrefix(text, "!")
	if bare == "" || strings.HasPrefix(bare, "!") {
		return "", "write a pattern such as main, v* or api/**"
	}
	if _, err := compileGlob(bare); err != nil {
		return "", "its brackets do not close; write [a-z], or \\[ for the character"
	}
	return text, ""
})

// globList refuses a list that begins with "!": it would let nothing in.
var globList = codec[[]string]{oneOrMore(globCodec).shape, func(d *decoder, n *node) []string {
	patterns := oneOrMore(globCodec).decode(d, n)
	if len(patterns) > 0 && strings.HasPrefix(patterns[0], "!") {
		d.report(n.at, `the first glob takes away and nothing is in yet; begin with "**"`)
	}
	return patterns
}}
