package dockerfile

import (
	"fmt"

	"github.com/opencontainers/go-digest"
)

// State is what a build would do with a step or an image.
type State string

// The states.
const (
	Cached  State = "cached"
	Rebuilt State = "rebuilt"
	Unknown State = "unknown" // only building tells
)

// Verdict is the state of one step.
type Verdict struct {
	Step   string // its name
	State  State
	Reason string // when it is not Cached
}

// Prediction is what a build would come to.
type Prediction struct {
	State  State
	Reason string // the first step that is not Cached, and why: "step [3/5] COPY app.py .: app.py changed"
	Steps  []Verdict
}

// Predict compares steps with what was built on this root before. built knows
// every Key and Loose of steps that were built, and every Final.Key; before are
// the steps of the last build of this image, for the reasons only.
func Predict(now []Step, final Final, built func(digest.Digest) bool, before []Step) Prediction {
	p := Prediction{State: Cached}
	twins := map[digest.Digest]string{}
	for i := range now {
		v := verdict(&now[i], built, before)
		// BuildKit runs what has one key once, and shows the others as cached.
		if twin, ok := twins[now[i].Key]; ok && v.State == Rebuilt && now[i].Always == "" {
			v.State, v.Reason = Unknown, "it does the same as step "+twin+"; one of them runs"
		} else if v.State != Cached {
			twins[now[i].Key] = v.Step
		}
		p.Steps = append(p.Steps, v)
		// Rebuilt for sure outweighs unknown, whichever comes first.
		if v.State == Rebuilt && p.State != Rebuilt || v.State == Unknown && p.State == Cached {
			p.State, p.Reason = v.State, "step "+v.Step+": "+v.Reason
		}
	}
	if p.State != Cached {
		return p
	}
	switch {
	case final.Unknown != "":
		p.State, p.Reason = Unknown, final.Unknown
	case !built(final.Key):
		p.State, p.Reason = Rebuilt, "the image's configuration changed (CMD, ENTRYPOINT, LABEL, EXPOSE or the like)"
	}
	return p
}

func verdict(s *Step, built func(digest.Digest) bool, before []Step) Verdict {
	v := Verdict{Step: s.Name, State: Cached}
	switch {
	case s.Always != "":
		v.State, v.Reason = Rebuilt, s.Always
	case s.Unknown != "":
		v.State, v.Reason = Unknown, s.Unknown
	case built(s.Key):
	case s.Loose != "" && built(s.Loose):
		v.State = Unknown
		v.Reason = "it takes files from a stage or image that changed; they may be the same"
	default:
		v.State = Rebuilt
		if v.Reason = changed(s, before); v.Reason == "" {
			v.Reason = "a step before it changed"
		}
		if len(before) == 0 {
			v.Reason = "it was never built here"
		}
	}
	return v
}

// Explain says in a sentence what made after differ from before: "step [3/5]
// COPY app.py .: app.py changed". It is empty when nothing did.
func Explain(before, after []Step) string {
	known := map[digest.Digest]bool{}
	for _, s := range before {
		known[s.Key] = true
	}
	for i := range after {
		if known[after[i].Key] {
			continue
		}
		if why := changed(&after[i], before); why != "" {
			return "step " + after[i].Name + ": " + why
		}
		return fmt.Sprintf("step %s: something it builds on changed", after[i].Name)
	}
	if len(after) < len(before) {
		return fmt.Sprintf("step %s is gone", before[len(before)-1].Name)
	}
	return ""
}
