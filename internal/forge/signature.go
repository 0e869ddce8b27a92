package forge

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"
)

// NewSecret makes a secret that every forge takes: 32 random bytes as "whsec_" and base64, which
// GitLab and the generic scheme decode, and the others use letter by letter.
func NewSecret() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// secretPrefix marks a secret that is base64 (standard-webhooks.com, "Signature scheme").
const secretPrefix = "whsec_"

// sum256 is the HMAC-SHA256 (RFC 2104) of the parts, one after the other.
func sum256(key []byte, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, key)
	for _, p := range parts {
		_, _ = mac.Write(p) // a hash never fails
	}
	return mac.Sum(nil)
}

// header is the value of a header that must be there once.
func header(h http.Header, name string) (string, error) {
	switch values := h.Values(name); {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return "", fmt.Errorf("%w: it has no header %s; set the secret in the forge's webhook", ErrUnsigned, name)
	case len(values) > 1:
		return "", fmt.Errorf("%w: it has %d headers %s", ErrSignature, len(values), name)
	default:
		return values[0], nil
	}
}

// verifyHex holds a header of prefix and lower-case hex against the HMAC of signed. Upper case is
// refused: no forge sends it, and one signature has one spelling.
func verifyHex(secret []byte, h http.Header, name, prefix string, signed []byte) error {
	got, err := header(h, name)
	if err != nil {
		return err
	}
	want := prefix + hex.EncodeToString(sum256(secret, signed))
	if !hmac.Equal([]byte(got), []byte(want)) {
		return fmt.Errorf("%w: header %s does not match; the forge's secret and the registered one differ, or the body was changed on its way", ErrSignature, name)
	}
	return nil
}

// verifyGitHub: X-Hub-Signature-256 over the raw body, also of a form. The SHA-1 in
// X-Hub-Signature is never looked at.
// https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
func verifyGitHub(_ time.Time, secret []byte, h http.Header, body []byte) ([]byte, error) {
	if err := verifyHex(secret, h, "X-Hub-Signature-256", "sha256=", body); err != nil {
		return nil, err
	}
	return formPayload(h, body)
}

// verifyGitea: X-Gitea-Signature, bare hex. Of a form Gitea signs the document in it, not the
// form (services/webhook/deliver.go), so the form alone is opened first.
func verifyGitea(_ time.Time, secret []byte, h http.Header, body []byte) ([]byte, error) {
	return verifyGiteaBy("X-Gitea-Signature", secret, h, body)
}

// verifyForgejo: its own header where it is there, and then that one alone; else Gitea's.
func verifyForgejo(_ time.Time, secret []byte, h http.Header, body []byte) ([]byte, error) {
	name := "X-Forgejo-Signature"
	if len(h.Values(name)) == 0 {
		name = "X-Gitea-Signature"
	}
	return verifyGiteaBy(name, secret, h, body)
}

func verifyGiteaBy(name string, secret []byte, h http.Header, body []byte) ([]byte, error) {
	if _, err := header(h, name); err != nil {
		return nil, err
	}
	document, err := formPayload(h, body)
	if err != nil {
		return nil, err
	}
	return document, verifyHex(secret, h, name, "", document)
}
