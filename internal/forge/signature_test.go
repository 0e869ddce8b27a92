package forge

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// signatures are the headers that hold each forge's proof.
var signatures = map[Kind][]string{
	GitHub: {"X-Hub-Signature-256"}, Gitea: {"X-Gitea-Signature"}, Forgejo: {"X-Forgejo-Signature"},
	GitLab: {headerSignature, headerTimestamp, headerID}, Generic: {headerSignature, headerTimestamp, headerID},
	Bitbucket: {"X-Hub-Signature"}, BitbucketDC: {"X-Hub-Signature"},
}

// bodies are a good one of each forge, of the event "issues", which only Generic does not know.
func bodies(kind Kind) string {
	if kind == Generic {
		return `{"event":"ping","repository":"example/shop"}`
	}
	return `{"repository":{"full_name":"example/shop"}}`
}

// TestForged: no byte of a body or of its proof can be changed, added or taken away.
func TestForged(t *testing.T) {
	for kind, names := range signatures {
		body := bodies(kind)
		good := signed(t, kind, "issues", []byte(body))
		if _, err := readAt(now, kind, secret, good, []byte(body)); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		refused := func(what string, h http.Header, body []byte) {
			t.Helper()
			if d, err := readAt(now, kind, secret, h, body); !errors.Is(err, ErrSignature) {
				t.Errorf("%s: %s: %+v, %v", kind, what, d, err)
			}
		}
		for i := range len(body) {
			for bit := range 8 {
				forged := []byte(body)
				forged[i] ^= 1 << bit
				refused("a bit of the body", good, forged)
			}
			refused("less body", good, slices.Delete([]byte(body), i, i+1))
		}
		refused("more body", good, []byte(body+" "))
		refused("no body", good, nil)
		for _, name := range names {
			for i := range len(good.Get(name)) {
				for bit := range 8 {
					h := good.Clone()
					value := []byte(h.Get(name))
					value[i] ^= 1 << bit
					h.Set(name, string(value))
					refused("a bit of "+name, h, []byte(body))
				}
				h := good.Clone()
				h.Set(name, h.Get(name)[:i]+h.Get(name)[i+1:])
				refused("less of "+name, h, []byte(body))
			}
			h := good.Clone()
			h.Add(name, h.Get(name))
			refused("twice "+name, h, []byte(body))
		}
		if _, err := readAt(now, kind, []byte("another"), good, []byte(body)); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: another secret: %v", kind, err)
		}
	}
}

// TestUnsigned: without its proof nothing is read, whatever else is there.
func TestUnsigned(t *testing.T) {
	body := []byte(`{"secret":"` + string(secret) + `","repository":{"full_name":"example/shop"}}`)
	for kind, names := range signatures {
		for _, value := range []string{"", "absent"} {
			h := signed(t, kind, "issues", body)
			for _, name := range names {
				h.Set(name, "")
				if value == "absent" {
					h.Del(name)
				}
			}
			if kind == Forgejo {
				h.Del("X-Gitea-Signature")
			}
			if kind == GitHub {
				h.Set("X-Hub-Signature", "sha1=2fd4e1c67a2d28fced849ee1bb76e7391b93eb12")
			}
			if _, err := readAt(now, kind, secret, h, body); !errors.Is(err, ErrUnsigned) {
				t.Errorf("%s: proof %q: %v", kind, value, err)
			}
		}
	}
}

// TestNoFallback: a stronger proof that is wrong is not made good by a weaker one that is right.
func TestNoFallback(t *testing.T) {
	body := []byte(`{}`)
	h := signed(t, Forgejo, "issues", body)
	h.Set("X-Forgejo-Signature", strings.Repeat("0", 64))
	if _, err := readAt(now, Forgejo, secret, h, body); !errors.Is(err, ErrSignature) {
		t.Errorf("Forgejo with Gitea's signature right and its own wrong: %v", err)
	}
	h.Del("X-Forgejo-Signature")
	if _, err := readAt(now, Forgejo, secret, h, body); err != nil {
		t.Errorf("an old Forgejo, which signs as Gitea: %v", err)
	}
}

// TestGitLabToken: the token counts only where no signature is.
func TestGitLabToken(t *testing.T) {
	body := []byte(`{}`)
	h := http.Header{"X-Gitlab-Event": {"Note Hook"}, "Idempotency-Key": {"one"}, "X-Gitlab-Token": {string(secret)}}
	if d, err := readAt(now, GitLab, secret, h, body); err != nil || d.ID != "one" {
		t.Errorf("the right token: %+v, %v", d, err)
	}
	for _, value := range []string{"", "v1,", "v2,AAAA"} {
		signed := h.Clone()
		signed.Set(headerSignature, value)
		signed.Set(headerID, "one")
		signed.Set(headerTimestamp, strconv.FormatInt(now.Unix(), 10))
		if _, err := readAt(now, GitLab, secret, signed, body); !errors.Is(err, ErrSignature) && !errors.Is(err, ErrUnsigned) {
			t.Errorf("the right token beside signature %q: %v", value, err)
		}
	}
	for i := range secret {
		forged := slices.Clone(secret)
		forged[i] ^= 1
		h.Set("X-Gitlab-Token", string(forged))
		if _, err := readAt(now, GitLab, secret, h, body); !errors.Is(err, ErrSignature) {
			t.Errorf("token with byte %d changed: %v", i, err)
		}
	}
	h.Set("X-Gitlab-Token", string(secret[:len(secret)-1]))
	if _, err := readAt(now, GitLab, secret, h, body); !errors.Is(err, ErrSignature) {
		t.Errorf("a shorter token: %v", err)
	}
}

// TestStandard holds the scheme against the example of its specification
// (standard-webhooks/standard-webhooks, spec/standard-webhooks.md and the libraries' tests).
func TestStandard(t *testing.T) {
	known := []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	h, err := Sign(known, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if err != nil || h.Get(headerSignature) != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("%v, %v", h, err)
	}
	if _, err := Sign([]byte("whsec_!"), "a", now, nil); err == nil {
		t.Error("a secret that is no base64 signs")
	}
}

// TestStale: what was signed too long ago, or is of the future, is refused.
func TestStale(t *testing.T) {
	body := []byte(bodies(Generic))
	for _, c := range []struct {
		off time.Duration
		ok  bool
	}{
		{0, true},
		{tolerance, true},
		{-tolerance, true},
		{tolerance + time.Second, false},
		{-tolerance - time.Second, false},
		{1 << 62, false},
	} {
		h := signed(t, Generic, "", body)
		if _, err := readAt(now.Add(c.off), Generic, secret, h, body); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%s later: %v", c.off, err)
		}
	}
	key, _ := standardKey(secret)
	for _, timestamp := range []string{"soon", "9223372036854775807", "-1", "1e9"} {
		h := signed(t, Generic, "", body)
		h.Set(headerTimestamp, timestamp)
		h.Set(headerSignature, standardSignature(key, h.Get(headerID), timestamp, body))
		if _, err := readAt(now, Generic, secret, h, body); !errors.Is(err, ErrSignature) {
			t.Errorf("timestamp %s: %v", timestamp, err)
		}
	}
}

// TestTwoSignatures: while a secret is exchanged a sender signs with both.
func TestTwoSignatures(t *testing.T) {
	body := []byte(bodies(Generic))
	h := signed(t, Generic, "", body)
	good := h.Get(headerSignature)
	h.Set(headerSignature, "v1a,other v1,AAAA "+good)
	if _, err := readAt(now, Generic, secret, h, body); err != nil {
		t.Error(err)
	}
	h.Set(headerSignature, strings.Repeat("v1,AAAA ", maxSignatures)+good)
	if _, err := readAt(now, Generic, secret, h, body); !errors.Is(err, ErrSignature) {
		t.Errorf("many signatures: %v", err)
	}
}

// TestNewSecret: one secret does for every forge.
func TestNewSecret(t *testing.T) {
	a, b := NewSecret(), NewSecret()
	key, err := standardKey([]byte(a))
	if a == b || err != nil || len(key) != 32 {
		t.Errorf("%q, %q, %d bytes, %v", a, b, len(key), err)
	}
}

// TestNoSecret: a hook without a secret is our fault, never the sender's key.
func TestNoSecret(t *testing.T) {
	for _, kind := range Kinds() {
		_, err := readAt(now, kind, nil, http.Header{}, nil)
		if err == nil || errors.Is(err, ErrSignature) || errors.Is(err, ErrUnsigned) || errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestHeaders: ids and events become parts of logs and file names.
func TestHeaders(t *testing.T) {
	body := []byte(`{}`)
	for _, c := range []struct{ name, header, value string }{
		{"line break", "X-GitHub-Delivery", "a\nb"},
		{"long", "X-GitHub-Delivery", strings.Repeat("a", 201)},
		{"not ASCII", "X-GitHub-Event", "püsh"},
		{"none", "X-GitHub-Event", ""},
	} {
		h := signed(t, GitHub, "issues", body)
		h.Set(c.header, c.value)
		if _, err := readAt(now, GitHub, secret, h, body); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	h := signed(t, GitHub, "issues", body)
	h.Del("X-GitHub-Delivery")
	first, err := readAt(now, GitHub, secret, h, body)
	if err != nil || !strings.HasPrefix(first.ID, "sha256-") {
		t.Fatalf("without an id: %+v, %v", first, err)
	}
	if again, _ := readAt(now, GitHub, secret, h, body); again.ID != first.ID {
		t.Errorf("the same delivery has ids %s and %s", first.ID, again.ID)
	}
}
