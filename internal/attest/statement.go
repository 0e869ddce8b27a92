package attest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

const statementType = "https://in-toto.io/Statement/v1"

// Predicate is what a statement says about its image: a TestResult, a
// Provenance, an Approval or a BreakGlass.
type Predicate interface {
	Type() string      // the URI that names the kind of claim
	signed() time.Time // when it was made; whole seconds
	wire() any         // what JSON encodes it
}

// statement is an in-toto Statement v1 with its fields in the order of their names.
type statement struct {
	Type          string          `json:"_type"`
	Predicate     json.RawMessage `json:"predicate"`
	PredicateType string          `json:"predicateType"`
	Subject       []subject       `json:"subject"`
}

type subject struct {
	Digest digestSet `json:"digest"`
}

// digestSet is in-toto's: algorithm → hexadecimal digits.
type digestSet map[string]string

func sha256Set(d digest.Digest) digestSet { return digestSet{digest.SHA256.String(): d.Encoded()} }

// sha256 is the set's digest, or empty where it is not exactly one SHA-256.
func (s digestSet) sha256() digest.Digest {
	d := digest.NewDigestFromEncoded(digest.SHA256, s[digest.SHA256.String()])
	if len(s) != 1 || d.Validate() != nil {
		return ""
	}
	return d
}

func encodeStatement(about digest.Digest, p Predicate) ([]byte, error) {
	if err := about.Validate(); err != nil || about.Algorithm() != digest.SHA256 {
		return nil, fmt.Errorf("%q is not the sha256 digest of an image", about)
	}
	predicate, err := encode(p.wire())
	if err != nil {
		return nil, err
	}
	return encode(statement{statementType, predicate, p.Type(), []subject{{sha256Set(about)}}})
}

// decodeStatement reads a signed payload. What it gives would be signed as
// exactly these bytes.
func decodeStatement(payload []byte) (about digest.Digest, p Predicate, err error) {
	var s statement
	if err := decode(payload, &s); err != nil {
		return "", nil, refuse(ErrMalformed, "the statement is not readable: %v", err)
	}
	if s.Type != statementType {
		return "", nil, refuse(ErrMalformed, "the statement is of type %q, not %s", s.Type, statementType)
	}
	if len(s.Subject) != 1 || s.Subject[0].Digest.sha256() == "" {
		return "", nil, refuse(ErrMalformed, "the statement is not about exactly one sha256 digest")
	}
	about = s.Subject[0].Digest.sha256()
	if p, err = decodePredicate(s.PredicateType, s.Predicate); err != nil {
		return "", nil, err
	}
	again, err := encodeStatement(about, p)
	if err != nil || !bytes.Equal(again, payload) {
		return "", nil, refuse(ErrMalformed, "the %s statement is not written in its one form: it may be of a newer slipway, or of another tool", p.Type())
	}
	return about, p, nil
}

func decodePredicate(kind string, data []byte) (Predicate, error) {
	switch kind {
	case TestResultType:
		return decodeAs[testResult](data)
	case ProvenanceType:
		return decodeAs[provenance](data)
	case ApprovalType:
		return decodeAs[approval](data)
	case BreakGlassType:
		return decodeAs[breakGlass](data)
	}
	return nil, refuse(ErrUnknownPredicate, "%q is no claim that slipway knows", kind)
}

// decodeAs reads the wire form of a predicate and what it says.
func decodeAs[W interface{ predicate() (Predicate, error) }](data []byte) (Predicate, error) {
	var w W
	if err := decode(data, &w); err != nil {
		return nil, refuse(ErrMalformed, "the claim is not readable: %v", err)
	}
	p, err := w.predicate()
	if err != nil {
		return nil, refuse(ErrMalformed, "the claim does not make sense: %v", err)
	}
	return p, nil
}

// stamp is a time as in-toto writes it: UTC, whole seconds.
type stamp string

func stampOf(t time.Time) stamp { return stamp(t.UTC().Truncate(time.Second).Format(time.RFC3339)) }

func (s stamp) before(other stamp) bool { return s < other } // all of one width

func (s stamp) time() (time.Time, error) {
	t, err := time.Parse(time.RFC3339, string(s))
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a time", string(s))
	}
	return t.UTC(), nil
}

// resource is the part of in-toto's ResourceDescriptor that slipway writes.
type resource struct {
	Name   string    `json:"name,omitempty"`
	URI    string    `json:"uri,omitempty"`
	Digest digestSet `json:"digest"`
}
