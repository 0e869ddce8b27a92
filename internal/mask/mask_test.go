package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
)

func newMask(t testing.TB, secrets ...string) *Mask {
	t.Helper()
	var all [][]byte
	for _, s := range secrets {
		all = append(all, []byte(s))
	}
	m, short := New(all...)
	if short > 0 {
		t.Fatalf("%d secrets are too short", short)
	}
	return m
}

func TestText(t *testing.T) {
	const secret = "s3cr/t+?ä 'x\""
	m := newMask(t, secret, "second\nline two is long\n}\n-----BEGIN X-----\n", "abcdef", "defghi")
	encoded := func(v any) string { b, _ := json.Marshal(v); return string(b) }
	for in, want := range map[string]string{
		"":                                 "",
		"nothing here":                     "nothing here",
		"a " + secret + " b":               "a *** b",
		secret + secret:                    "******",
		hex.EncodeToString([]byte(secret)): "***",
		strings.ToUpper(hex.EncodeToString([]byte(secret))): "***",
		"u=" + url.QueryEscape(secret) + "&x":               "u=***&x",
		"/" + url.PathEscape(secret) + "/":                  "/***/",
		"/" + strings.ToLower(url.PathEscape("ä")) + "/":    "/%c3%a4/",
		encoded(secret):          `"***"`,
		`"s3cr\/t+?\u00e4 'x\""`: `"***"`,
		base64.StdEncoding.EncodeToString([]byte(secret)):    "***",
		base64.RawURLEncoding.EncodeToString([]byte(secret)): "***",
		"> line two is long <":                               "> *** <",
		"second":                                             "second", // too short a line to be hidden by itself
		"}":                                                  "}",
		"-----BEGIN X-----":                                  "-----BEGIN X-----",
		"second\r\nline two is long\r\n}\r\n-----BEGIN X-----": "***",
		"abcdefghi!":              "***!",
		"xabcdefabcdefghix":       "x******x",
		strings.Repeat("s3cr", 5): strings.Repeat("s3cr", 5),
		base64.StdEncoding.EncodeToString([]byte("xx" + "abcdef")):     "eHh***",
		base64.StdEncoding.EncodeToString([]byte("abcdef" + "\n")):     "***Cg==",
		base64.StdEncoding.EncodeToString([]byte("user:" + secret)):    "dXNlcjp***",
		base64.StdEncoding.EncodeToString([]byte("x" + secret + "yz")): "eH***eXo=",
	} {
		if got := m.Text(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestShortSecrets(t *testing.T) {
	m, short := New([]byte("abc"), nil, []byte("\n"), []byte("x\n"), []byte("long enough"))
	if short != 2 {
		t.Errorf("%d are called too short, want 2", short)
	}
	if got := m.Text("abc x long enough"); got != "abc x ***" {
		t.Error(got)
	}
	none, _ := New()
	for _, m := range []*Mask{none, {}, nil} {
		if got := m.Text("text"); got != "text" {
			t.Error(got)
		}
	}
}

// FuzzWrappedBase64 breaks the lines of a text in base64 at a width, wherever in it
// the secret stands: no more than three of its characters are left together.
func FuzzWrappedBase64(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 3))
		secret := random(r, 20+r.IntN(300)) + "..."
		m := newMask(t, secret)
		before, after := random(r, r.IntN(100)), random(r, r.IntN(100))
		enc := []*base64.Encoding{base64.StdEncoding, base64.URLEncoding}[r.IntN(2)]
		text := enc.EncodeToString([]byte(before + secret + after))
		from, to := (len(before)*8+5)/6, (len(before)+len(secret))*8/6
		width, end := []int{60, 64, 70, 76}[r.IntN(4)], []string{"\n", "\r\n"}[r.IntN(2)]
		var in strings.Builder
		for at := 0; at < len(text); at += width {
			in.WriteString(text[at:min(at+width, len(text))] + end)
		}
		got := pieces(t, m, r, in.String())
		for at := from; at+MinLength <= to; at++ {
			if part := text[at : at+MinLength]; strings.Contains(got, part) && strings.Count(got, part) > strings.Count(text[:from]+" "+text[to:], part) {
				t.Fatalf("%q came out as %q, with %q of the secret %q", in.String(), got, part, secret)
			}
		}
	})
}

// TestWrappedBase64 is base64(1) and openssl(1) of a long secret.
func TestWrappedBase64(t *testing.T) {
	secret := strings.Repeat("a very long secret ", 12)
	m := newMask(t, secret)
	whole := base64.StdEncoding.EncodeToString([]byte(secret))
	for _, width := range []int{64, 76} {
		var in strings.Builder
		for rest := whole; rest != ""; {
			n := min(width, len(rest))
			in.WriteString(rest[:n] + "\n")
			rest = rest[n:]
		}
		got := m.Text(in.String())
		for line := range strings.Lines(got) {
			if line != Mark+"\n" && len(line) > minLine {
				t.Errorf("width %d: %q stays", width, line)
			}
		}
	}
}

// encoders are the ways in which TestNothingGetsThrough writes a secret, with what
// stands around it, and what must not be in the output.
var encoders = []func(before, secret, after string) (text, forbidden string){
	func(b, s, a string) (string, string) { return b + s + a, s },
	func(b, s, a string) (string, string) {
		h := hex.EncodeToString([]byte(s))
		return hex.EncodeToString([]byte(b)) + h + a, h
	},
	func(b, s, a string) (string, string) {
		h := strings.ToUpper(hex.EncodeToString([]byte(s)))
		return b + h + a, h
	},
	func(b, s, a string) (string, string) { u := url.QueryEscape(s); return b + u + a, u },
	func(b, s, a string) (string, string) { u := url.PathEscape(s); return b + u + a, u },
	func(b, s, a string) (string, string) {
		j, _ := json.Marshal(s)
		return b + string(j) + a, string(j)
	},
	func(b, s, a string) (string, string) { q := fmt.Sprintf("%q", s); return b + q + a, q },
	base64In(base64.StdEncoding), base64In(base64.RawStdEncoding), base64In(base64.URLEncoding), base64In(base64.RawURLEncoding),
}

// base64In encodes all of it; no run of the characters that stand for the secret
// alone may be left.
func base64In(enc *base64.Encoding) func(b, s, a string) (string, string) {
	return func(b, s, a string) (string, string) {
		text := enc.EncodeToString([]byte(b + s + a))
		from, to := (len(b)*8+5)/6, (len(b)+len(s))*8/6
		return text, text[from:to]
	}
}

const alphabet = "abcdefgh /+?&%\"'\\<>äé\n\t~-_.:=0123456789ABCDEF\x00\xff"

func random(r *rand.Rand, n int) string {
	out := make([]byte, n)
	for i := range out {
		out[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(out)
}

// pieces writes a text in random pieces and gives what comes out.
func pieces(t *testing.T, m *Mask, r *rand.Rand, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := m.Writer(&out)
	for rest := []byte(text); len(rest) > 0; {
		n := 1 + r.IntN(min(len(rest), 1+r.IntN(40)))
		if got, err := w.Write(rest[:n]); got != n || err != nil {
			t.Fatal(got, err)
		}
		if len(w.held) >= m.longest {
			t.Fatalf("%d bytes are held back, the longest secret has %d", len(w.held), m.longest)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func FuzzNothingGetsThrough(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		secrets := make([]string, 1+r.IntN(4))
		for i := range secrets {
			secrets[i] = strings.Trim(random(r, MinLength+r.IntN(60)), "\r\n") + "..." // no line end at its end, never too short
		}
		m := newMask(t, secrets...)
		before, after := random(r, r.IntN(50)), random(r, r.IntN(50))
		secret := secrets[r.IntN(len(secrets))]
		text, forbidden := encoders[r.IntN(len(encoders))](before, secret, after)
		text = strings.Repeat(text, 1+r.IntN(3))
		if !strings.Contains(text, forbidden) {
			t.Fatalf("the test itself is wrong: no %q in %q", forbidden, text)
		}
		got := pieces(t, m, r, text)
		if strings.Contains(got, forbidden) {
			t.Errorf("secrets %q: %q came out as %q, with %q in it", secrets, text, got, forbidden)
		}
		if whole := m.Text(text); got != whole {
			t.Errorf("in pieces %q, whole %q", got, whole)
		}
	})
}

func FuzzOtherTextStays(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed, []byte("text"))
	}
	f.Fuzz(func(t *testing.T, seed uint64, text []byte) {
		r := rand.New(rand.NewPCG(seed, 2))
		m := newMask(t, random(r, 12)+"....", "another secret")
		in := string(text) + random(r, r.IntN(3000))
		if r.IntN(2) == 0 {
			in += string(m.patterns[r.IntN(len(m.patterns))].text[:MinLength]) // the beginning of a secret
		}
		for _, p := range m.patterns {
			if n, _ := m.next([]byte(in), 0); n < len(in) || strings.Contains(in, string(p.text)) {
				t.Skip("there is a secret in it")
			}
		}
		if got := pieces(t, m, r, in); got != in {
			t.Errorf("%q became %q", in, got)
		}
	})
}

// TestAgainstAPlainSearch holds the search to the plainest one there is.
func TestAgainstAPlainSearch(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		m := &Mask{}
		for range 1 + r.IntN(5) {
			p := make([]byte, MinLength+r.IntN(4))
			for i := range p {
				p[i] = "ab"[r.IntN(2)]
			}
			m.patterns = append(m.patterns, pattern{text: p})
		}
		m.prepare()
		text := make([]byte, r.IntN(60))
		for i := range text {
			text[i] = "ab"[r.IntN(2)]
		}
		hidden := make([]bool, len(text))
		for _, p := range m.patterns {
			for i := range text {
				if bytes.HasPrefix(text[i:], p.text) {
					for j := range p.text {
						hidden[i+j] = true
					}
				}
			}
		}
		var want []byte
		for i, c := range text {
			if !hidden[i] {
				want = append(want, c)
			}
		}
		got := strings.ReplaceAll(pieces(t, m, r, string(text)), Mark, "")
		if got != string(want) {
			t.Fatalf("patterns %s in %q: left %q, want %q", fmt.Sprint(m.patterns), text, got, want)
		}
	}
}

func TestErrorsBelow(t *testing.T) {
	w := newMask(t, "secret").Writer(broken{})
	if _, err := w.Write([]byte("text")); !errors.Is(err, errBroken) {
		t.Error(err)
	}
}

type broken struct{}

var errBroken = errors.New("broken")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func BenchmarkWriter(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	line := "2026-11-25T10:00:00Z INFO  compile src/main/java/com/example/shop/web/Checkout.java took 12 ms (cached: no)\n"
	text := bytes.Repeat([]byte(line), 32<<10/len(line))
	for _, length := range []int{8, 24, 64} {
		var secrets []string
		for range 20 {
			key := make([]byte, length)
			for i := range key {
				key[i] = byte(r.IntN(256))
			}
			secrets = append(secrets, base64.StdEncoding.EncodeToString(key)[:length])
		}
		m := newMask(b, secrets...)
		b.Run(fmt.Sprintf("20 secrets of %d", length), func(b *testing.B) {
			w := m.Writer(discard{})
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				_, _ = w.Write(text)
			}
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
