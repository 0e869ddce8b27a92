package promote

import (
	"fmt"
	"strings"
	"time"

	"slipway/pipeline"
)

// gates describes what env asks of a promotion, in the order it is asked.
func gates(env *pipeline.Environment) []Gate {
	var list []Gate
	add := func(name, format string, args ...any) {
		list = append(list, Gate{name, fmt.Sprintf(format, args...)})
	}
	g := env.Gates
	if g.Branch != "" {
		add("branch", "the tested commit is on %s, and the environment file is read from there", g.Branch)
	}
	by := ""
	if len(g.Signers) > 0 {
		by = ", signed with " + strings.Join(g.Signers, " or ")
	}
	if len(g.Tests) > 0 {
		add("tests", "%s passed on exactly this digest%s", enumerate(g.Tests), by)
		if g.Flaky == pipeline.FlakyAllow {
			add("flaky", "a pass after a failure counts")
		} else {
			add("flaky", "a pass after a failure does not count")
		}
	}
	if len(g.Evidence) > 0 {
		kinds := make([]string, len(g.Evidence))
		for i, e := range g.Evidence {
			kinds[i] = string(e)
		}
		add("evidence", "%s on this digest%s", enumerate(kinds), by)
	}
	if a := g.Approvals; a != nil {
		not := ""
		if a.Not != "" {
			not = ", not the " + a.Not
		}
		add("approvals", "%d of %s%s", a.Count, strings.Join(a.From, ", "), not)
	}
	if g.Soak > 0 {
		where := "the environment it comes from"
		if len(env.From) > 0 {
			where = strings.Join(env.From, " or ")
		}
		add("soak", "%s in %s", short(g.Soak), where)
	}
	for _, f := range g.Freeze {
		add("freeze", "not from %s to %s (%s)", f.Start, f.End, f.TZ)
	}
	return list
}

func enumerate(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// short is d without the zero minutes and seconds at its end.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
