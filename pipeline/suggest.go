package pipeline

import (
	"slices"
	"strings"
)

// suggestion is "; did you mean …?" for the nearest of the known names, the
// known names themselves when none is near, and nothing when there are none.
func suggestion(got string, known []string) string {
	if best := nearest(got, known); best != "" {
		return `; did you mean "` + best + `"?`
	}
	if len(known) == 0 {
		return ""
	}
	known = slices.Sorted(slices.Values(known))
	const most = 16
	if len(known) > most {
		return "; known: " + strings.Join(known[:most], ", ") + ", …"
	}
	return "; known: " + strings.Join(known, ", ")
}

// nearest is the known name that a slip of the fingers turns into got, or "".
func nearest(got string, known []string) string {
	best, bestDistance := "", slips(len(got))
	const most = 500 // a file made to be slow has more
	folded := plain(got)
	for _, name := range known[:min(len(known), most)] {
		if plain(name) == folded {
			return name
		}
		if d := distance(got, name, bestDistance); d < bestDistance || (d == bestDistance && best == "") {
			best, bestDistance = name, d
		}
	}
	return best
}

// slips is how many wrong letters a name of that length can have and still be meant.
func slips(length int) int {
	switch {
	case length < 2:
		return 0
	case length < 6:
		return 1
	case length < 10:
		return 2
	}
	return 3
}

// plain folds what people spell differently: dependsOn, depends-on, Depends_On.
func plain(s string) string {
	return strings.ToLower(separators.Replace(s))
}

var separators = strings.NewReplacer("_", "", "-", "", " ", "")

// distance is the optimal string alignment distance (Levenshtein, and a swap of
// neighbours counts as one), or limit+1 as soon as it must be more than limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], limit+1)
}
