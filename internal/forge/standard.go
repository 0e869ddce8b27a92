package forge

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The scheme of standard-webhooks.com, which GitLab uses, and slipway both ways: the headers
// webhook-id, webhook-timestamp (Unix seconds) and webhook-signature, which has one or more of
// "v1," and the base64 of the HMAC-SHA256 over id, dot, timestamp, dot, body.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"

	// tolerance is how far a timestamp may be off, either way. What was recorded is refused later.
	tolerance = 5 * time.Minute

	// maxSignatures is how many a header may hold: one for each secret while they are exchanged.
	maxSignatures = 10
)

// standardKey is the key that a secret stands for: what follows whsec_ as base64, or its letters.
func standardKey(secret []byte) ([]byte, error) {
	text, ok := strings.CutPrefix(string(secret), secretPrefix)
	if !ok {
		return secret, nil
	}
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(key) == 0 {
		return nil, errors.New("the webhook's secret begins with whsec_ and is not base64; register the repository again")
	}
	return key, nil
}

// standardSignature is the v1 signature of a body sent as id at a time.
func standardSignature(key []byte, id, timestamp string, body []byte) string {
	return "v1," + base64.StdEncoding.EncodeToString(sum256(key, []byte(id+"."+timestamp+"."), body))
}

// Sign gives the headers of a webhook of slipway's own, by the scheme that Generic verifies. A
// body that is sent again keeps its id, so that the receiver can tell.
func Sign(secret []byte, id string, at time.Time, body []byte) (http.Header, error) {
	key, err := standardKey(secret)
	if err != nil {
		return nil, err
	}
	timestamp := strconv.FormatInt(at.Unix(), 10)
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set(headerID, id)
	h.Set(headerTimestamp, timestamp)
	h.Set(headerSignature, standardSignature(key, id, timestamp, body))
	return h, nil
}

// verifyStandard holds the three headers against the body.
func verifyStandard(now time.Time, secret []byte, h http.Header, body []byte) ([]byte, error) {
	got, err := header(h, headerSignature)
	if err != nil {
		return nil, err
	}
	id, err := header(h, headerID)
	if err != nil {
		return nil, err
	}
	timestamp, err := header(h, headerTimestamp)
	if err != nil {
		return nil, err
	}
	key, err := standardKey(secret)
	if err != nil {
		return nil, err
	}
	want, matches := standardSignature(key, id, timestamp, body), false
	signatures := strings.Split(got, " ")
	if len(signatures) > maxSignatures {
		return nil, fmt.Errorf("%w: header %s has %d signatures, the most is %d", ErrSignature, headerSignature, len(signatures), maxSignatures)
	}
	for _, s := range signatures {
		matches = hmac.Equal([]byte(s), []byte(want)) || matches
	}
	if !matches {
		return nil, fmt.Errorf("%w: header %s does not match; the sender's secret and the registered one differ, or the body was changed on its way", ErrSignature, headerSignature)
	}
	// Only now: an unsigned timestamp tells nothing.
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: header %s is no Unix time in seconds", ErrSignature, headerTimestamp)
	}
	if off := now.Sub(time.Unix(seconds, 0)); off > tolerance || off < -tolerance {
		return nil, fmt.Errorf("%w: it was signed %s from now; set both clocks, or send it anew", ErrSignature, off.Round(time.Second))
	}
	return body, nil
}

// verifyGitLab: the signature where there is one, and then that one alone; else the token, which
// says who sent it but not that the body is whole, so TLS has to.
// https://docs.gitlab.com/user/project/integrations/webhooks/
func verifyGitLab(now time.Time, secret []byte, h http.Header, body []byte) ([]byte, error) {
	if len(h.Values(headerSignature)) > 0 {
		return verifyStandard(now, secret, h, body)
	}
	token, err := header(h, "X-Gitlab-Token")
	if err != nil {
		return nil, err
	}
	// Digests, so that the time tells nothing of the secret's length either.
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256(secret)
	if !hmac.Equal(got[:], want[:]) {
		return nil, fmt.Errorf("%w: header X-Gitlab-Token is another than the registered secret", ErrSignature)
	}
	return body, nil
}

// verifyBitbucket: X-Hub-Signature, which is SHA-256 here, of Cloud and Data Center.
// https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/
func verifyBitbucket(_ time.Time, secret []byte, h http.Header, body []byte) ([]byte, error) {
	return body, verifyHex(secret, h, "X-Hub-Signature", "sha256=", body)
}
