package forge

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"time"
)

// MaxBody is the most bytes a webhook has: GitHub's own limit, and the largest of all.
const MaxBody = 25 << 20

// What is wrong with a webhook that Read refuses. Any other error of Read is slipway's own fault
// (5xx: the forge should try again).
var (
	ErrUnsigned  = errors.New("the webhook is not signed")           // 401
	ErrSignature = errors.New("the webhook's signature is not ours") // 403
	ErrMalformed = errors.New("the webhook cannot be read")          // 400
)

// Read verifies a webhook and says what it tells. kind and secret are those the hook was
// registered with, h and body what came, body unchanged and at most MaxBody bytes.
func Read(kind Kind, secret []byte, h http.Header, body []byte) (Delivery, error) {
	return readAt(time.Now(), kind, secret, h, body)
}

// readAt is Read at a given time: signatures that hold a time do so for a while only.
func readAt(now time.Time, kind Kind, secret []byte, h http.Header, body []byte) (Delivery, error) {
	f, ok := readers[kind]
	if !ok {
		return Delivery{}, fmt.Errorf("no forge is called %q", kind)
	}
	if len(secret) == 0 {
		return Delivery{}, errors.New("the webhook was registered without a secret; register the repository again")
	}
	if len(body) > MaxBody {
		return Delivery{}, malformed("its body has %d bytes, the most is %d", len(body), MaxBody)
	}
	body, err := f.verify(now, secret, h, body)
	if err != nil {
		return Delivery{}, err
	}
	d, err := head(f, h, body)
	if err != nil {
		return Delivery{}, err
	}
	if err := shallow(body); err != nil {
		return Delivery{}, err
	}
	if err := f.parse(&d, h, body); err != nil {
		return Delivery{}, fmt.Errorf("%s: %w", d.Event, err)
	}
	d.finish()
	return d, nil
}

// reader is one forge's way of sending webhooks.
type reader struct {
	// verify gives the JSON document whose signature holds.
	verify func(now time.Time, secret []byte, h http.Header, body []byte) ([]byte, error)
	event  []string // headers that name the event; the first that is there counts
	id     []string // headers that name the delivery, likewise
	// parse fills in Repo, Changes, Ping and Ignored from the verified document.
	parse func(d *Delivery, h http.Header, body []byte) error
}

// readers are the forges that Read knows; nothing changes the map.
var readers = map[Kind]reader{
	GitHub:      {verifyGitHub, []string{"X-GitHub-Event"}, []string{"X-GitHub-Delivery"}, parseGitHub},
	GitLab:      {verifyGitLab, []string{"X-Gitlab-Event"}, []string{headerID, "Idempotency-Key"}, parseGitLab},
	Bitbucket:   {verifyBitbucket, []string{"X-Event-Key"}, []string{"X-Request-UUID"}, parseBitbucket},
	BitbucketDC: {verifyBitbucket, []string{"X-Event-Key"}, []string{"X-Request-Id"}, parseBitbucketDC},
	Generic:     {verifyStandard, nil, []string{headerID}, parseGeneric},
	Gitea:       {verifyGitea, []string{"X-Gitea-Event"}, []string{"X-Gitea-Delivery"}, parseGitea},
	Forgejo: {
		verifyForgejo,
		[]string{"X-Forgejo-Event", "X-Gitea-Event"},
		[]string{"X-Forgejo-Delivery", "X-Gitea-Delivery"},
		parseGitea,
	},
}

// head reads the event's name and the delivery's id. body is what stands for an id that is not there.
func head(f reader, h http.Header, body []byte) (Delivery, error) {
	event, err := oneOf(h, f.event, 64)
	if err != nil {
		return Delivery{}, err
	}
	if event == "" && len(f.event) > 0 {
		return Delivery{}, malformed("it has no header %s", f.event[0])
	}
	id, err := oneOf(h, f.id, 200)
	if err != nil {
		return Delivery{}, err
	}
	if id == "" {
		sum := sha256.New()
		_, _ = fmt.Fprintf(sum, "%s\n", event) // a hash never fails
		_, _ = sum.Write(body)
		id = "sha256-" + hex.EncodeToString(sum.Sum(nil))
	}
	return Delivery{ID: id, Event: event}, nil
}

// oneOf is the first of these headers that is there, and refuses one that is there twice, longer
// than limit, or not plain text: ids and events end up in logs and file names.
func oneOf(h http.Header, names []string, limit int) (string, error) {
	for _, name := range names {
		values := h.Values(name)
		if len(values) == 0 {
			continue
		}
		if len(values) > 1 {
			return "", malformed("it has %d headers %s", len(values), name)
		}
		if len(values[0]) > limit {
			return "", malformed("its header %s has %d bytes, the most is %d", name, len(values[0]), limit)
		}
		for _, c := range []byte(values[0]) {
			if c <= ' ' && c != ' ' || c > '~' {
				return "", malformed("its header %s is not plain text", name)
			}
		}
		if values[0] != "" {
			return values[0], nil
		}
	}
	return "", nil
}

// formPayload is the JSON document of a form-encoded body, or the body itself when it is not one.
func formPayload(h http.Header, body []byte) ([]byte, error) {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return body, nil // a type that cannot be read is not a form: JSON is all else we take
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, malformed("its form cannot be read: %v", err)
	}
	if len(values["payload"]) != 1 {
		return nil, malformed("its form has %d fields \"payload\", not one", len(values["payload"]))
	}
	return []byte(values["payload"][0]), nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
