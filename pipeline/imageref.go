package pipeline

import (
	"strings"
)

// imageRef is "image:NAME", "image:NAME[python=3.12]" or, for a volume,
// "image:NAME:/path".
type imageRef struct {
	name   string
	matrix map[string]string // what the brackets select; nil without
	path   string
}

// cutImage reads an image of the pipeline from text; ours is false for anything else.
func cutImage(text string) (ref imageRef, ours bool) {
	rest, ours := strings.CutPrefix(text, imagePrefix)
	if !ours {
		return ref, false
	}
	name, after, bracketed := strings.Cut(rest, "[")
	if bracketed {
		selector, behind, _ := strings.Cut(after, "]")
		ref.matrix = cutSelector(selector)
		ref.name, ref.path = name, strings.TrimPrefix(behind, ":")
		return ref, true
	}
	ref.name, ref.path, _ = strings.Cut(rest, ":")
	return ref, true
}

// cutSelector reads "a=1,b=2".
func cutSelector(text string) map[string]string {
	matrix := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(part, "=")
		matrix[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return matrix
}
