package pipeline

import (
	"errors"
	"strings"
)

// arguments takes an argv: a list of words, each as it is written.
var arguments = list(anyText, 0)

// commandOr takes an argv, or a text that split makes one of.
func commandOr(says string, atLeast int, split func(string) ([]string, error)) codec[[]string] {
	s := &shape{kind: "either", says: says, either: []*shape{
		{kind: "string", expression: true}, {kind: "list", items: anyText.shape, atLeast: atLeast},
	}}
	return codec[[]string]{s, func(d *decoder, n *node) []string {
		if n.kind == listNode {
			argv := arguments.decode(d, n)
			if len(n.items) == 0 {
				if atLeast > 0 {
					d.report(n.at, "an empty command")
				}
				return []string{} // not nil: Compose's way to take the image's own away
			}
			return argv
		}
		if !d.spend(n) {
			return nil
		}
		if n.kind != scalarNode || n.tag != "!!str" {
			d.report(n.at, "%s where a %s belongs", n.what(), says)
			return nil
		}
		text, _, known := d.text(n)
		if !known {
			return nil
		}
		argv, err := split(text)
		if err != nil {
			d.report(n.at, "%q: %v; write a list of words instead", shorten(text), err)
		}
		return argv
	}}
}

// shellCommand is a test's command: text runs in the image's shell.
var shellCommand = commandOr("command (text for /bin/sh, or a list of words)", 1, func(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("an empty command")
	}
	return []string{"/bin/sh", "-c", text}, nil
})

// words is Compose's command of a service: text is split as a shell would, and no shell runs.
var words = commandOr("command (text split into words, or a list)", 0, splitWords)

// splitWords splits text at spaces, keeping what stands in quotes or behind a
// backslash together. Variables, globs and operators stay plain text.
func splitWords(text string) ([]string, error) {
	out, word, inWord := []string{}, strings.Builder{}, false
	quote, escaped := rune(0), false
	for _, r := range text {
		switch {
		case escaped:
			if quote == '"' && r != '"' && r != '\\' && r != '$' && r != '`' {
				word.WriteRune('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if inWord {
				out = append(out, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote or backslash is left open")
	}
	if inWord {
		out = append(out, word.String())
	}
	return out, nil
}
