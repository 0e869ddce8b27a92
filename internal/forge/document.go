package forge

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// The most a payload may hold of a thing. The forges stay far below.
const (
	maxDepth   = 64      // objects and lists in each other
	maxName    = 1 << 10 // bytes of a repository's full name, an account or a ref
	maxURL     = 4 << 10
	maxMessage = 8 << 10 // a longer commit message is cut, since it is only read for words in it
	maxChanges = 1 << 10 // refs in one push
)

// shallow refuses a document of more than maxDepth levels before anything recurses into it.
func shallow(body []byte) error {
	depth, quoted, escaped := 0, false, false
	for _, c := range body {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped = c == '\\'
			quoted = c != '"'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return malformed("its JSON has more than %d levels", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// decode reads the fields of v and leaves the rest: forges add fields whenever they like.
func decode(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return malformed("its JSON: %v", err)
	}
	return nil
}

// repo checks what a payload says about its repository.
func repo(fullName, cloneURL string) (Repo, error) {
	if err := plain("the repository's name", fullName, maxName); err != nil {
		return Repo{}, err
	}
	if fullName == "" {
		return Repo{}, malformed("it names no repository")
	}
	if err := plain("the clone URL", cloneURL, maxURL); err != nil {
		return Repo{}, err
	}
	return Repo{FullName: fullName, CloneURL: cloneURL}, nil
}

// plain refuses a text that is too long or has control characters, which no name has.
func plain(what, s string, limit int) error {
	if len(s) > limit {
		return malformed("%s has %d bytes, the most is %d", what, len(s), limit)
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return malformed("%s is not plain text", what)
		}
	}
	return nil
}

// cut shortens s to at most limit bytes without splitting a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// account is a name that is only shown: what does not fit is cut, not refused.
func account(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
	return cut(s, 256)
}
