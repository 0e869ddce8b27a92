package promote

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"slipway/internal/git"
)

// Kind says what a commit of an environment file did.
type Kind string

// What a commit can do.
const (
	Promoted   Kind = "promote"
	RolledBack Kind = "rollback"
	Configured Kind = "config" // a person changed the file
)

// Change of one image.
type ImageChange struct {
	Name     string        `json:"name"`
	Digest   digest.Digest `json:"digest,omitempty"` // empty: it runs no longer
	Previous digest.Digest `json:"previous,omitempty"`
}

// Record is what a commit says about the promotion that made it.
type Record struct {
	ID          string          `json:"id"`
	Kind        Kind            `json:"kind"`
	Environment string          `json:"environment"`
	Images      []ImageChange   `json:"images"`
	From        string          `json:"from,omitempty"`
	Sources     []string        `json:"sources,omitempty"` // "web COMMIT REPOSITORY"
	Evidence    []digest.Digest `json:"evidence,omitempty"`
	Actor       string          `json:"actor"`
	Config      string          `json:"config,omitempty"`      // commit whose environment file was asked
	BreakGlass  []string        `json:"break_glass,omitempty"` // "soak by ann: WHY"
	Of          string          `json:"of,omitempty"`          // of a rollback: the promotion it undoes
	Reason      string          `json:"reason,omitempty"`      // of a rollback
	Audit       string          `json:"audit,omitempty"`       // where the log of the root stood: LOG N DIGEST
}

const nothing = "none"

// Keys of the trailers, in the order they are written.
const (
	keyPromotion   = "Slipway-Promotion"
	keyKind        = "Slipway-Kind"
	keyEnvironment = "Slipway-Environment"
	keyImage       = "Slipway-Image" // NAME DIGEST previous DIGEST
	keyFrom        = "Slipway-From"
	keySource      = "Slipway-Source"
	keyEvidence    = "Slipway-Evidence"
	keyActor       = "Slipway-Actor"
	keyConfig      = "Slipway-Config"
	keyBreakGlass  = "Slipway-Break-Glass"
	keyOf          = "Slipway-Of"
	keyReason      = "Slipway-Reason"
	keyAudit       = "Slipway-Audit"
)

// message is the commit's message: a sentence, and the record as trailers.
func (r Record) message() string {
	var names []string
	for _, im := range r.Images {
		names = append(names, im.Name)
	}
	verb := "Promote"
	if r.Kind == RolledBack {
		verb = "Roll back"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s in %s\n\n", verb, enumerate(names), r.Environment)
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", key, oneLine(value))
		}
	}
	line(keyPromotion, r.ID)
	line(keyKind, string(r.Kind))
	line(keyEnvironment, r.Environment)
	for _, im := range r.Images {
		line(keyImage, fmt.Sprintf("%s %s previous %s", im.Name, orNothing(im.Digest), orNothing(im.Previous)))
	}
	line(keyFrom, r.From)
	for _, s := range r.Sources {
		line(keySource, s)
	}
	for _, e := range r.Evidence {
		line(keyEvidence, e.String())
	}
	line(keyActor, r.Actor)
	line(keyConfig, r.Config)
	for _, g := range r.BreakGlass {
		line(keyBreakGlass, g)
	}
	line(keyOf, r.Of)
	line(keyReason, r.Reason)
	line(keyAudit, r.Audit)
	return b.String()
}

// oneLine keeps what people write from making trailers of its own.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func orNothing(d digest.Digest) string {
	if d == "" {
		return nothing
	}
	return d.String()
}

// recordOf reads the record of a commit; a commit without one was made by a person.
func recordOf(c git.Commit) Record {
	r := Record{Kind: Configured, Actor: c.Author.String()}
	trailers := git.Trailers(c.Message)
	if !slices.ContainsFunc(trailers, func(t git.Trailer) bool { return t.Key == keyPromotion }) {
		return r
	}
	for _, t := range trailers {
		switch t.Key {
		case keyPromotion:
			r.ID = t.Value
		case keyKind:
			r.Kind = Kind(t.Value)
		case keyEnvironment:
			r.Environment = t.Value
		case keyImage:
			if f := strings.Fields(t.Value); len(f) == 4 {
				r.Images = append(r.Images, ImageChange{f[0], digestOr(f[1]), digestOr(f[3])})
			}
		case keyFrom:
			r.From = t.Value
		case keySource:
			r.Sources = append(r.Sources, t.Value)
		case keyEvidence:
			r.Evidence = append(r.Evidence, digest.Digest(t.Value))
		case keyActor:
			r.Actor = t.Value
		case keyConfig:
			r.Config = t.Value
		case keyBreakGlass:
			r.BreakGlass = append(r.BreakGlass, t.Value)
		case keyOf:
			r.Of = t.Value
		case keyReason:
			r.Reason = t.Value
		case keyAudit:
			r.Audit = t.Value
		}
	}
	return r
}

func digestOr(text string) digest.Digest {
	if text == nothing {
		return ""
	}
	return digest.Digest(text)
}
