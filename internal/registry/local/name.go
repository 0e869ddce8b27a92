package local

import (
	"fmt"
	"regexp"
)

// The grammar of the distribution spec, "Pulling manifests".
var (
	nameGrammar = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagGrammar  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// maxName is what clients in use take, in bytes, host name included; a part of
// a name is shorter then than what a file may be called.
const maxName = 255

// CheckName takes the names that a repository may have.
func CheckName(name string) error {
	if len(name) > maxName || !nameGrammar.MatchString(name) {
		return fmt.Errorf("%.300q: %w: a repository is lower-case letters, digits and single . _ - between them, in parts divided by /; choose another name", name, ErrName)
	}
	return nil
}

// CheckTag takes the tags that a manifest may have.
func CheckTag(tag string) error {
	if !tagGrammar.MatchString(tag) {
		return fmt.Errorf("%.200q: %w: a tag is up to 128 letters, digits, . _ and -; choose another one", tag, ErrName)
	}
	return nil
}
