package local

import (
	"fmt"
	"strings"
)

// maxName is what clients in use take, in bytes, host name included; a part of
// a name is shorter then than what a file may be called.
const maxName = 255

// maxTag is of the distribution spec.
const maxTag = 128

// CheckName takes the names that a repository may have (distribution-spec,
// "Pulling manifests"). It is no regular expression because compiling one takes
// longer than most commands check names.
func CheckName(name string) error {
	ok := len(name) <= maxName
	for part := range strings.SplitSeq(name, "/") {
		ok = ok && namePart(part)
	}
	if !ok {
		return fmt.Errorf("%.300q: %w: a repository is lower-case letters, digits and single . _ - between them, in parts divided by /; choose another name", name, ErrName)
	}
	return nil
}

// namePart is [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*.
func namePart(s string) bool {
	between := 0 // where the separator that we are in begins
	inside := true
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			if !inside && !separator(s[between:i]) {
				return false
			}
			inside = true
		case inside:
			between, inside = i, false
		}
	}
	return s != "" && inside && !strings.ContainsRune("._-", rune(s[0]))
}

func separator(s string) bool {
	return s == "." || s == "_" || s == "__" || strings.Trim(s, "-") == ""
}

// CheckTag takes the tags that a manifest may have: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func CheckTag(tag string) error {
	ok := tag != "" && len(tag) <= maxTag
	for i := range len(tag) {
		c := tag[i]
		word := c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		ok = ok && (word || i > 0 && (c == '.' || c == '-'))
	}
	if !ok {
		return fmt.Errorf("%.200q: %w: a tag is up to 128 letters, digits, . _ and -; choose another one", tag, ErrName)
	}
	return nil
}
