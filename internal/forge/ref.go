package forge

import (
	"strings"

	"slipway/pipeline"
)

// checkRef holds a full ref name to the rules of git-check-ref-format(1), and to one more: no
// part begins with a dash, so that none can be taken for an option.
func checkRef(ref string) error {
	bad := func(why string) error { return malformed("%.200q is no name of a ref: %s", ref, why) }
	if len(ref) > maxName {
		return malformed("the name of a ref has %d bytes, the most is %d", len(ref), maxName)
	}
	if !strings.HasPrefix(ref, "refs/") {
		return bad("it does not begin with refs/")
	}
	for _, part := range strings.Split(ref, "/") {
		switch {
		case part == "":
			return bad("a part of it is empty")
		case part[0] == '.' || part[0] == '-':
			return bad("a part of it begins with a dot or a dash")
		case strings.HasSuffix(part, ".lock"):
			return bad("a part of it ends in .lock")
		}
	}
	if strings.Contains(ref, "..") || strings.Contains(ref, "@{") || strings.HasSuffix(ref, ".") {
		return bad("it has \"..\" or \"@{\" in it, or ends in a dot")
	}
	for _, c := range []byte(ref) {
		if c <= ' ' || c == 0x7f || strings.IndexByte(`~^:?*[\`, c) >= 0 {
			return bad("it has a character that git does not allow")
		}
	}
	return nil
}

// checkCommit wants a whole object id: 40 digits (SHA-1) or 64 (SHA-256), lower case.
func checkCommit(what, id string) error {
	if len(id) != 40 && len(id) != 64 || !isHex(id) {
		return malformed("%s %.80q is no commit id", what, id)
	}
	return nil
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

// isZero says whether id stands for no object.
func isZero(id string) bool { return strings.Trim(id, "0") == "" }

// pushed makes the Change of a ref that went from before to after. A ref that is neither branch
// nor tag gives false: notes and the forges' own refs build nothing.
//
// commit is what after points to, when the forge tells it apart from an annotated tag's object.
func pushed(ref, before, after, commit string) (Change, bool, error) {
	if err := checkRef(ref); err != nil {
		return Change{}, false, err
	}
	c := Change{Before: before, After: after, Event: pipeline.Event{Ref: ref, Trusted: true}}
	switch {
	case strings.HasPrefix(ref, "refs/heads/"):
		c.Event.Kind = pipeline.Push
	case strings.HasPrefix(ref, "refs/tags/"):
		c.Event.Kind = pipeline.Tag
	default:
		return Change{}, false, nil
	}
	if err := checkCommit("before:", before); err != nil {
		return Change{}, false, err
	}
	if err := checkCommit("after:", after); err != nil {
		return Change{}, false, err
	}
	if isZero(after) {
		if isZero(before) {
			return Change{}, false, malformed("%s was deleted without having been there", ref)
		}
		c.Deleted = true
		return c, true, nil
	}
	if commit == "" || c.Event.Kind == pipeline.Push {
		commit = after // a branch points to commits only
	}
	if err := checkCommit("commit:", commit); err != nil || isZero(commit) {
		return Change{}, false, malformed("%s has no commit", ref)
	}
	c.Event.Commit = commit
	return c, true, nil
}

// add puts the Change of a pushed ref into d; ignored refs give a reason when nothing else does.
func (d *Delivery) add(ref, before, after, commit, message, author string) error {
	if len(d.Changes) == maxChanges {
		return malformed("it has more than %d changes", maxChanges)
	}
	c, ok, err := pushed(ref, before, after, commit)
	if err != nil || !ok {
		return err
	}
	c.Author = account(author)
	if !c.Deleted {
		c.Message = cut(message, maxMessage)
	}
	d.Changes = append(d.Changes, c)
	return nil
}
