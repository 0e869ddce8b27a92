package secret

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"slipway/pipeline"
)

// newIdentity makes a key, and its file as age-keygen writes it.
func newIdentity(t *testing.T) (*age.X25519Identity, string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "age.key")
	if err := os.WriteFile(file, []byte("# public key: "+id.Recipient().String()+"\n"+id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return id, file
}

func seal(t *testing.T, to age.Recipient, text string, armored bool) []byte {
	t.Helper()
	var out bytes.Buffer
	var into io.Writer = &out
	closing := func() error { return nil }
	if armored {
		a := armor.NewWriter(&out)
		into, closing = a, a.Close
	}
	w, err := age.Encrypt(into, to)
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = closing()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestEncryptedSecrets(t *testing.T) {
	id, file := newIdentity(t)
	_, other := newIdentity(t)
	sealed := seal(t, id.Recipient(), "hush\n", false)
	cut := sealed[:len(sealed)-1]
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("hush, this is no identity\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		identity string
		sealed   []byte
		want     string // in the error; empty: the secret is found
	}{
		{"binary", file, sealed, ""},
		{"armored", file, seal(t, id.Recipient(), "hush\n", true), ""},
		{"no key", "", sealed, "db.age is encrypted, and there is no key for it here; give the file of an age identity with --age-identity"},
		{"wrong key", other, sealed, "db.age is not encrypted for the identities of " + other},
		{"cut off", file, cut, "db.age is no whole age-encrypted file"},
		{"plain", file, []byte("hush\n"), "db.age is no whole age-encrypted file"},
		{"no identity", bad, sealed, "holds something else than age identities"},
		{"no file", bad + ".gone", sealed, "--age-identity: open " + bad},
		{"large", file, seal(t, id.Recipient(), strings.Repeat("x", maxSize+1), false), "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Resolver{Identity: c.identity}.Value(t.Context(), "PASSWORD", pipeline.Secret{Age: "db.age"}, func(name string) ([]byte, error) {
				if name != "db.age" {
					return nil, os.ErrNotExist
				}
				return c.sealed, nil
			})
			if c.want == "" {
				if err != nil || got != "hush" {
					t.Errorf("%q, %v", got, err)
				}
				return
			}
			if err == nil || got != "" || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}
