// Package promote moves a tested digest into an environment: it asks the gates,
// copies the image with its proofs, writes the digest into the environment's file
// in git, has it delivered, checks that it runs, and takes it back if it does not.
//
// A gate is decided by what the protected branch of the environments' repository
// asks for and by signed claims on exactly that digest: never by the commit under
// test, and never by what a database of slipway's remembers. The change itself is
// one compare-and-swap of a branch; what is done around it stands in a journal
// first, so that a crash anywhere is finished or undone at the next start.
//
// It changes the bytes of a digest and no others: comments, order, quotes and
// line ends stay. It refuses an edit that would change anything else the file
// says (a digest shared through an alias, say), an image that the candidates
// name more than once, and a tag in place of a digest.
package promote

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/diff"

	"slipway/pipeline"
)

// Candidate is an image that could be promoted.
type Candidate struct {
	Name   string            // under the pipeline's images
	Matrix map[string]string // nil without a matrix
	Digest string            // "sha256:…"; empty where only building would tell
}

// Gate is one thing that a promotion must pass, in words.
type Gate struct {
	Name        string // the key under gates
	Requirement string
}

func (g Gate) String() string { return g.Name + ": " + g.Requirement }

// Change is what a promotion would do to an environment file.
type Change struct {
	Gates  []Gate
	Diff   string // unified; empty where nothing changes, "unknown" for a digest that only building would tell
	Edited []byte // the file afterwards; nil where a digest is unknown
}

// unknown stands in a diff for the digest of what is not built yet.
const unknown = "unknown"

// Preview says what promoting images would change in the environment file and
// which gates they would have to pass. file is its name in errors and in the
// diff. Images that the file does not name are left out; an image of the file
// that is not among images stays as it is. The error is a pipeline.Errors for a
// file that is wrong, or says which image cannot be written and what to do.
func Preview(file string, data []byte, images []Candidate) (Change, error) {
	env, err := pipeline.ParseEnvironment(file, data)
	if err != nil {
		return Change{}, err
	}
	change := Change{Gates: gates(env), Edited: data}
	shown := data
	for _, name := range sorted(env.Images) {
		c, found, err := choose(name, env.Images[name], images)
		if err != nil {
			return Change{}, fmt.Errorf("%s: %w", file, err)
		}
		if !found || (c.Digest != "" && c.Digest == string(env.Images[name].Digest)) {
			continue
		}
		if c.Digest == "" {
			change.Edited = nil
		} else if err := digest.Digest(c.Digest).Validate(); err != nil {
			return Change{}, fmt.Errorf("promote %s to %s: %q is not a digest (%w); name it as %s@sha256:…", name, env.Name, c.Digest, err, name)
		}
		if shown, err = setDigest(file, shown, name, c.Digest); err != nil {
			return Change{}, err
		}
	}
	if change.Edited != nil {
		change.Edited = shown
	}
	change.Diff = unified(file, data, shown)
	return change, nil
}

func sorted(images map[string]pipeline.EnvironmentImage) []string {
	names := make([]string, 0, len(images))
	for name := range images {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// choose finds the one candidate that the environment's image means.
func choose(name string, image pipeline.EnvironmentImage, images []Candidate) (Candidate, bool, error) {
	var found []Candidate
	for _, c := range images {
		if c.Name == name && fits(c.Matrix, image.Matrix) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return Candidate{}, false, nil
	case 1:
		return found[0], true, nil
	}
	return Candidate{}, false, fmt.Errorf("%d images of the pipeline fit %s; write the values of one of them under images.%s.matrix", len(found), name, name)
}

// fits says whether matrix has all values of chosen.
func fits(matrix, chosen map[string]string) bool {
	for k, v := range chosen {
		if got, ok := matrix[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// unified is the difference as git shows it.
func unified(file string, before, after []byte) string {
	text := string(diff.Diff("a/"+file, before, "b/"+file, after))
	_, text, _ = strings.Cut(text, "\n") // "diff a b", which says nothing more
	return text
}
