package forge

import (
	"encoding/hex"
	"net/http"
	"testing"
	"time"
)

// secret is what every hook of the tests is registered with.
var secret = []byte("whsec_c2xpcHdheSB0ZXN0cyBzaWduIHdpdGggdGhpcyBrZXk=")

// now is when every delivery of the tests arrives.
var now = time.Unix(1_760_000_000, 0)

// signed gives the headers that a forge sends with body, as event.
func signed(t testing.TB, kind Kind, event string, body []byte) http.Header {
	t.Helper()
	h := http.Header{"Content-Type": {"application/json"}}
	mac := hex.EncodeToString(sum256(secret, body))
	set := func(pairs ...string) {
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
	}
	switch kind {
	case GitHub:
		set("X-GitHub-Event", event, "X-GitHub-Delivery", "7d5a1c0e-0001", "X-Hub-Signature-256", "sha256="+mac)
	case Gitea, Forgejo:
		set("X-Gitea-Event", event, "X-Gitea-Delivery", "7d5a1c0e-0002", "X-Gitea-Signature", mac,
			"X-Gogs-Event", event, "X-GitHub-Event", event, "X-Hub-Signature-256", "sha256="+mac)
		if kind == Forgejo {
			set("X-Forgejo-Event", event, "X-Forgejo-Delivery", "7d5a1c0e-0003", "X-Forgejo-Signature", mac)
		}
	case GitLab, Generic:
		standard, err := Sign(secret, "msg_0004", now, body)
		if err != nil {
			t.Fatal(err)
		}
		h = standard
		if kind == GitLab {
			set("X-Gitlab-Event", event)
		}
	case Bitbucket:
		set("X-Event-Key", event, "X-Request-UUID", "7d5a1c0e-0005", "X-Hub-Signature", "sha256="+mac)
	case BitbucketDC:
		set("X-Event-Key", event, "X-Request-Id", "7d5a1c0e-0006", "X-Hub-Signature", "sha256="+mac)
	default:
		t.Fatalf("the tests cannot sign for %s", kind)
	}
	return h
}

// read is Read of a body signed as its forge does.
func read(t testing.TB, kind Kind, event, body string) (Delivery, error) {
	t.Helper()
	return readAt(now, kind, secret, signed(t, kind, event, []byte(body)), []byte(body))
}
