package attest

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Why an attestation is refused; match with errors.Is.
var (
	ErrMalformed        = errors.New("malformed")         // the bytes are not what slipway writes
	ErrOtherSubject     = errors.New("other subject")     // it is about another image
	ErrUnknownPredicate = errors.New("unknown predicate") // it claims something that slipway does not know
	ErrUnlisted         = errors.New("unlisted signer")   // no listed key signed it
	ErrBadSignature     = errors.New("bad signature")     // the signature is not that key's over these bytes
	ErrOutsideWindow    = errors.New("outside window")    // the key may not sign at that time
)

// Refusal says why an attestation does not count. It wraps one of the reasons above.
type Refusal struct {
	Reason error
	Detail string
}

func (r *Refusal) Error() string { return r.Detail }

func (r *Refusal) Unwrap() error { return r.Reason }

func refuse(reason error, format string, args ...any) error {
	return &Refusal{reason, fmt.Sprintf(format, args...)}
}

// Verified is a claim that a listed key made about an image.
type Verified struct {
	Digest    digest.Digest // of the attestation's manifest: its name
	Subject   digest.Digest // the image
	Key       Key
	Signed    time.Time
	Predicate Predicate
}

// skew is how far the clocks of two machines may be apart.
const skew = 5 * time.Minute

// Verify checks one attestation of the image described by subject: manifest is
// the referrer, bundle its one layer. keys are those whose word counts, at the
// times they list; now is the verifier's own time. The error is a *Refusal.
//
// When a statement was signed is what it says itself. So a window keeps an old
// key from being used by mistake; a key that was stolen must leave the list.
func Verify(subject ocispec.Descriptor, manifest, bundle []byte, keys []Key, now time.Time) (Verified, error) {
	b, err := decodeBundle(bundle)
	if err != nil {
		return Verified{}, err
	}
	key, err := signerOf(b, keys)
	if err != nil {
		return Verified{}, err
	}
	about, p, err := decodeStatement(b.Envelope.Payload)
	if err != nil {
		return Verified{}, err
	}
	at := p.signed()
	switch {
	case about != subject.Digest:
		return Verified{}, refuse(ErrOtherSubject, "it is about %s, not about %s", about, subject.Digest)
	case !key.Valid(at):
		return Verified{}, refuse(ErrOutsideWindow, "key %s signed it at %s, outside its time (%s)", key.ID(), stampOf(at), key.window())
	case at.After(now.Add(skew)):
		return Verified{}, refuse(ErrOutsideWindow, "it was signed at %s, which is still to come", stampOf(at))
	}
	want, err := encodeManifest(subject, bundle, p.Type(), at)
	if err != nil || !bytes.Equal(want, manifest) {
		return Verified{}, refuse(ErrMalformed, "the manifest is not the one that belongs to its statement")
	}
	return Verified{digest.FromBytes(manifest), about, key, at, p}, nil
}

// Runs gives the runs that an attestation speaks of, whoever signed it: what is known
// of them is worth keeping while it is. One that cannot be read gives none.
func Runs(bundle []byte) []string {
	b, err := decodeBundle(bundle)
	if err != nil {
		return nil
	}
	_, p, err := decodeStatement(b.Envelope.Payload)
	if err != nil {
		return nil
	}
	switch p := p.(type) {
	case TestResult:
		return []string{p.Run, p.ReusedFrom}
	case Provenance:
		return []string{p.Run}
	}
	return nil
}

// signerOf finds the key that signed b among keys.
func signerOf(b bundle, keys []Key) (Key, error) {
	for _, k := range keys {
		if k.hint() == b.Verification.PublicKey.Hint {
			return k, checkSignature(k, b)
		}
	}
	return Key{}, refuse(ErrUnlisted, "the key that it names as its signer is not listed")
}

// window is the key's time in words.
func (k Key) window() string {
	from, to := "from the beginning", "without an end"
	if !k.NotBefore.IsZero() {
		from = "from " + string(stampOf(k.NotBefore))
	}
	if !k.NotAfter.IsZero() {
		to = "to " + string(stampOf(k.NotAfter))
	}
	return from + " " + to
}
