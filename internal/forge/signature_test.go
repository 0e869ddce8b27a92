package forge

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// signatures are the headers that hold each forge's proof.
var signatures = map[Kind][]string{
	GitHub: {"X-Hub-Signature-256"}, Gitea: {"X-Gitea-Signature"}, Forgejo: {"X-Forgejo-Signature"},
}

// events are an event of each forge whose body is not read further.
var events = map[Kind]string{GitHub: "issues", Gitea: "issues", Forgejo: "issues"}

// TestForged: no byte of a body or of its proof can be changed, added or taken away.
func TestForged(t *testing.T) {
	const body = `{"repository":{"full_name":"example/shop"}}`
	for kind, names := range signatures {
		good := signed(t, kind, events[kind], []byte(body))
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
			h := signed(t, kind, events[kind], body)
			for _, name := range names {
				h.Set(name, "")
				if value == "absent" {
					h.Del(name)
				}
			}
			if kind == Forgejo {
				h.Del("X-Gitea-Signature")
			}
			h.Set("X-Hub-Signature", "sha1=2fd4e1c67a2d28fced849ee1bb76e7391b93eb12")
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
