package attest

import (
	"errors"
	"fmt"
	"regexp"

	"slipway/pipeline"
)

// Source says which pipeline was run, so that anyone with the repository can
// expand it again: the file at the commit, and the event it was expanded for.
// The zero Event is a person at a shell.
type Source struct {
	Repository string // clone URL without credentials, or the file:// directory of one that has none
	Commit     string // hexadecimal object id
	Pipeline   string // path of the pipeline file in the repository
	Event      pipeline.EventKind
	Ref        string // may be empty
	Base       string // of a pull request
}

// gitCommit is in-toto's name for the object id of a commit.
const gitCommit = "gitCommit"

var objectID = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

func (s Source) check() error {
	switch {
	case !objectID.MatchString(s.Commit):
		return fmt.Errorf("%q is not the object id of a commit", s.Commit)
	case s.Repository == "":
		return errors.New("it names no repository")
	case s.Pipeline == "":
		return errors.New("it names no pipeline file")
	}
	return nil
}

// event is a Source's event in a claim.
type event struct {
	Kind pipeline.EventKind `json:"kind,omitempty"`
	Ref  string             `json:"ref,omitempty"`
	Base string             `json:"base,omitempty"`
}
