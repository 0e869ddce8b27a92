package pipeline

import (
	"fmt"
	"regexp"
	"strings"
)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// ParseEnvFile reads a file of variables as Compose's env_file means it: lines of
// NAME=VALUE, blank ones, and comments behind "#". A value may stand in single
// quotes, which keep everything as it is, or in double quotes, which know \n, \r,
// \t, \" and \\; either may span lines. Nothing is interpolated, and a name without
// "=" is an error: there is no environment to take its value from. Of a name that
// is given twice the last counts. name is that of the file, for errors.
func ParseEnvFile(name string, data []byte) (map[string]string, error) {
	vars := map[string]string{}
	text := strings.ReplaceAll(strings.TrimPrefix(string(data), "\ufeff"), "\r\n", "\n")
	for line := 1; text != ""; {
		before := text
		key, value, rest, err := envEntry(text)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, line, err)
		}
		if key != "" {
			vars[key] = value
		}
		text = rest
		line += strings.Count(before[:len(before)-len(rest)], "\n")
	}
	return vars, nil
}

// envEntry reads one entry; its key is empty where there is none. The errors do
// not show values, which may be secret.
func envEntry(text string) (key, value, rest string, err error) {
	line, after, _ := strings.Cut(text, "\n")
	if trimmed := strings.TrimSpace(line); trimmed == "" || trimmed[0] == '#' {
		return "", "", after, nil
	}
	name, written, ok := strings.Cut(line, "=")
	key = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(name), "export "))
	if !ok || !variableName.MatchString(key) {
		return "", "", "", fmt.Errorf("not NAME=VALUE; write a variable a line, comments behind #")
	}
	written = strings.TrimLeft(written, " \t")
	if written == "" || written[0] != '\'' && written[0] != '"' {
		if i := strings.Index(written, " #"); i >= 0 {
			written = written[:i]
		}
		return key, strings.TrimSpace(written), after, nil
	}
	quoted := text[strings.Index(text, "=")+1:]
	quoted = quoted[strings.IndexByte(quoted, written[0]):]
	value, rest, ok = unquoteEnv(quoted)
	if !ok {
		return "", "", "", fmt.Errorf("the value of %s begins with %c and does not end with it", key, written[0])
	}
	line, after, _ = strings.Cut(rest, "\n")
	if trailing := strings.TrimSpace(line); trailing != "" && trailing[0] != '#' {
		return "", "", "", fmt.Errorf("something follows the quoted value of %s; quote all of it, or nothing", key)
	}
	return key, value, after, nil
}

// unquoteEnv reads text, which begins with a quote, up to the quote that ends it.
func unquoteEnv(text string) (value, rest string, ok bool) {
	quote := text[0]
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		c := text[i]
		switch {
		case c == quote:
			return b.String(), text[i+1:], true
		case c == '\\' && quote == '"' && i+1 < len(text):
			i++
			if named := strings.IndexByte(`nrt"\`, text[i]); named >= 0 {
				b.WriteByte("\n\r\t\"\\"[named])
			} else {
				b.WriteByte('\\')
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}
