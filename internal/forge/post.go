package forge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// PostError is why something could not be posted.
type PostError struct {
	What   string        // what was to be done, and where
	Code   int           // HTTP status; 0 when there was no answer
	Reason string        // the answer's first words, or what the network did
	Again  bool          // trying again may help: no answer, 408, 429, 5xx, or a limit that passes
	After  time.Duration // how long the forge asks to wait; 0 when it does not say
	cause  error
}

func (e *PostError) Error() string {
	next := "trying again will not help"
	switch {
	case e.Again:
		next = "it is worth trying again"
	case e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden:
		next = "give slipway a token that may do it"
	case e.Code == http.StatusNotFound:
		next = "check the repository's name, that the commit is there, and that the token may see both"
	case e.Code >= 300 && e.Code < 400:
		next = "name the address that it moved to; slipway carries no token to another"
	}
	if e.Code == 0 {
		return fmt.Sprintf("%s: %s; %s", e.What, e.Reason, next)
	}
	return fmt.Sprintf("%s: HTTP %d: %s; %s", e.What, e.Code, e.Reason, next)
}

func (e *PostError) Unwrap() error { return e.cause }

// reply is what came back.
type reply struct {
	code int
	body string // at most maxReply bytes
}

const maxReply = 64 << 10

// strict is a client that follows no redirect: a token or a signed body goes where it was meant to.
func strict(c *http.Client) *http.Client {
	if c == nil {
		c = &http.Client{Timeout: 30 * time.Second}
	}
	own := *c
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &own
}

// post sends req; an answer other than 2xx is a *PostError, and is given all the same.
func post(client *http.Client, req *http.Request, what string) (reply, error) {
	req.Header.Set("User-Agent", "slipway")
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error // without the URL, which may be a secret one
		if errors.As(err, &u) {
			err = u.Err
		}
		again := !errors.Is(err, context.Canceled)
		return reply{}, &PostError{What: what, Reason: err.Error(), Again: again, cause: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	got := reply{resp.StatusCode, string(text)}
	if resp.StatusCode/100 == 2 {
		return got, nil // done, even where the rest of the answer was lost
	}
	failed := &PostError{
		What: what, Code: resp.StatusCode, After: retryAfter(resp.Header, time.Now()),
		Reason: nonEmpty(oneLine(got.body, 300), http.StatusText(resp.StatusCode)), cause: err,
	}
	switch {
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusRequestTimeout:
		failed.Again = true
	case resp.StatusCode == http.StatusForbidden: // GitHub's way of saying "not so fast"
		failed.Again = resp.Header.Get("Retry-After") != "" || resp.Header.Get("X-Ratelimit-Remaining") == "0"
	}
	return got, failed
}

// Outgoing is a webhook of slipway's own: whoever has the secret can verify it as Generic does.
type Outgoing struct {
	URL    string
	Secret []byte
	Client *http.Client // nil: one that gives up after 30 seconds; redirects are never followed
}

// Send posts body, a JSON document, once. The caller tries again with the same id and body (and
// the time of the new try) while the *PostError says that it helps.
func (o Outgoing) Send(ctx context.Context, id string, at time.Time, body []byte) error {
	if len(o.Secret) == 0 {
		return errors.New("an outgoing webhook needs a secret")
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("the address of an outgoing webhook is not of the form https://HOST/PATH")
	}
	h, err := Sign(o.Secret, id, at, body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.URL, strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	req.Header = h
	_, err = post(strict(o.Client), req, "send webhook "+id+" to "+u.Host)
	return err
}
