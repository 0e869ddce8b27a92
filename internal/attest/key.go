package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
	"time"
)

// Key is a public key and the time in which what it signs counts.
type Key struct {
	Public    *ecdsa.PublicKey // P-256
	NotBefore time.Time        // zero: no beginning
	NotAfter  time.Time        // zero: no end
}

// Valid says whether the key may sign at the time t.
func (k Key) Valid(t time.Time) bool {
	return (k.NotBefore.IsZero() || !t.Before(k.NotBefore)) && (k.NotAfter.IsZero() || !t.After(k.NotAfter))
}

// ID is a short name for the key, made from the key itself.
func (k Key) ID() string {
	sum := sha256.Sum256(k.der())
	return hex.EncodeToString(sum[:8])
}

// hint is how a bundle names the key that signed it.
func (k Key) hint() string {
	sum := sha256.Sum256(k.der())
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Equal says whether both are the same key, whatever their windows.
func (k Key) Equal(other Key) bool { return k.Public.Equal(other.Public) }

func (k Key) der() []byte {
	der, err := x509.MarshalPKIXPublicKey(k.Public)
	if err != nil {
		panic("attest: a key that ParseKey and NewSigner do not let in: " + err.Error())
	}
	return der
}

const (
	pemPublic  = "PUBLIC KEY"
	pemPrivate = "PRIVATE KEY"
	notBefore  = "not-before"
	notAfter   = "not-after"
)

// Marshal is the key's file: its window as comments, which other tools skip, and
// the PEM block that cosign and openssl read.
func (k Key) Marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# slipway public key %s\n", k.ID())
	for _, w := range []struct {
		name string
		at   time.Time
	}{{notBefore, k.NotBefore}, {notAfter, k.NotAfter}} {
		if !w.at.IsZero() {
			fmt.Fprintf(&b, "# %s: %s\n", w.name, w.at.UTC().Format(time.RFC3339))
		}
	}
	b.Write(pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: k.der()}))
	return b.Bytes()
}

// maxKeyFile is far more than one key needs.
const maxKeyFile = 16 << 10

// ParseKey reads a public key's file. It must hold one key, and no private one.
func ParseKey(data []byte) (Key, error) {
	if len(data) > maxKeyFile {
		return Key{}, fmt.Errorf("%d bytes are no public key", len(data))
	}
	begin := bytes.Index(data, []byte("-----BEGIN "))
	if begin < 0 {
		return Key{}, fmt.Errorf("no PEM block in it; give a file that begins with -----BEGIN %s-----", pemPublic)
	}
	block, rest := pem.Decode(data[begin:])
	switch {
	case block == nil:
		return Key{}, fmt.Errorf("its PEM block is damaged")
	case block.Type != pemPublic:
		return Key{}, fmt.Errorf("it holds a %s; give the file of the public key (`slipway keys export` prints it)", block.Type)
	case len(block.Headers) > 0:
		return Key{}, fmt.Errorf("its PEM block has headers; a key's window stands in comments above the block")
	case len(bytes.TrimSpace(rest)) > 0:
		return Key{}, fmt.Errorf("text follows the key; keep one key in a file")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("its public key is damaged: %w", err)
	}
	ec, ok := public.(*ecdsa.PublicKey)
	if !ok || ec.Curve != elliptic.P256() {
		return Key{}, fmt.Errorf("it is not a P-256 key; `slipway keys generate` makes one")
	}
	k := Key{Public: ec}
	return k, k.readWindow(string(data[:begin]))
}

// readWindow reads the comments above a key. A comment that was meant as a
// window must not go unheard, so anything like one is read strictly.
func (k *Key) readWindow(text string) error {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		comment, ok := strings.CutPrefix(line, "#")
		if !ok && line != "" {
			return fmt.Errorf("%q stands above the key; only comments, beginning with #, may", line)
		}
		name, value, _ := strings.Cut(strings.TrimSpace(comment), ":")
		var at *time.Time
		switch {
		case name == notBefore:
			at = &k.NotBefore
		case name == notAfter:
			at = &k.NotAfter
		case strings.HasPrefix(strings.ToLower(name), "not"):
			return fmt.Errorf("the comment %q is neither %s: TIME nor %s: TIME", line, notBefore, notAfter)
		default:
			continue
		}
		t, err := time.Parse(time.RFC3339, strings.TrimSpace(value))
		if err != nil || !at.IsZero() {
			return fmt.Errorf("the comment %q does not give one time such as 2026-01-31T00:00:00Z", line)
		}
		*at = t.UTC()
	}
	if !k.NotAfter.IsZero() && k.NotAfter.Before(k.NotBefore) {
		return fmt.Errorf("its %s is before its %s", notAfter, notBefore)
	}
	return nil
}
