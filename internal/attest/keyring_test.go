package attest_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/attest"
)

// TestRotation: what the old key signed in its time stays valid, what it would
// sign afterwards is refused, and the new key signs.
func TestRotation(t *testing.T) {
	w := newWorld(t)
	ring := attest.Keyring{Dir: filepath.Join(t.TempDir(), "keys")}
	if _, err := ring.Signer(now); !errors.Is(err, attest.ErrNoKey) {
		t.Fatalf("an empty keyring signs: %v", err)
	}
	first, err := ring.Generate(now, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Generate(now, time.Time{}); err == nil {
		t.Error("a second key was made beside the first")
	}
	old, err := ring.Signer(now)
	if err != nil || !old.Key.Equal(first) {
		t.Fatalf("%s signs, %v", old.Key.ID(), err)
	}
	before := w.sign(t, old, w.result(t, "unit"))

	at := now.Add(time.Hour)
	second, ended, err := ring.Rotate(at, at.Add(time.Hour))
	if err != nil || len(ended) != 1 || !ended[0].Equal(first) || !ended[0].NotAfter.Equal(at) {
		t.Fatalf("rotated to %s, ended %v, %v", second.ID(), ended, err)
	}
	signer, err := ring.Signer(at)
	if err != nil || !signer.Key.Equal(second) {
		t.Fatalf("%s signs, %v", signer.Key.ID(), err)
	}
	later := w.result(t, "unit")
	later.Signed = at.Add(time.Minute)
	stale, after := w.sign(t, old, later), w.sign(t, signer, later)

	held, err := ring.List()
	if err != nil || len(held) != 2 || !held[0].Equal(second) || !held[0].Private {
		t.Fatalf("listed %v, %v", held, err)
	}
	keys := []attest.Key{held[0].Key, held[1].Key}
	for name, c := range map[string]struct {
		a    attest.Attestation
		want error
	}{"signed before": {before, nil}, "old key afterwards": {stale, attest.ErrOutsideWindow}, "new key": {after, nil}} {
		if _, err := attest.Verify(w.subject, c.a.Manifest, c.a.Bundle, keys, at.Add(time.Hour)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := ring.Signer(at.Add(2 * time.Hour)); !errors.Is(err, attest.ErrNoKey) {
		t.Errorf("an ended key signs: %v", err)
	}
}

func TestPrivateKeyIsPrivate(t *testing.T) {
	dir := t.TempDir()
	ring := attest.Keyring{Dir: dir}
	key, err := ring.Generate(now, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, key.ID()+".key")
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Signer(now); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read signs: %v", err)
	}
	if left, err := filepath.Glob(dir + "/.new-*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	file := filepath.Join(dir, "alice")
	s, private, err := attest.NewSigner(now, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if err := attest.WritePair(file, s.Key, private); err != nil {
		t.Fatal(err)
	}
	if err := attest.WritePair(file, s.Key, private); err == nil {
		t.Error("a key was written over")
	}
	if read, err := attest.ReadSigner(file, file+".pub"); err != nil || !read.Key.Equal(s.Key) || !read.Key.NotBefore.Equal(s.Key.NotBefore) {
		t.Errorf("read %v, %v", read.Key, err)
	}
	if _, err := attest.ReadSigner(file, filepath.Join(dir, key.ID()+".pub")); err == nil {
		t.Error("a private key took another's window")
	}
}

func TestKeyFiles(t *testing.T) {
	s, private, err := attest.NewSigner(now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	file := s.Key.Marshal()
	got, err := attest.ParseKey(file)
	if err != nil || !got.Equal(s.Key) || !got.NotBefore.Equal(now) || !got.NotAfter.Equal(now.Add(time.Hour)) {
		t.Fatalf("read %+v, %v", got, err)
	}
	block := file[bytes.Index(file, []byte("-----BEGIN")):]
	bare, err := attest.ParseKey(block)
	if err != nil || !bare.Valid(now.AddDate(-50, 0, 0)) || !bare.Valid(now.AddDate(50, 0, 0)) {
		t.Errorf("a bare key: %+v, %v", bare, err)
	}
	with := func(text string) []byte { return append([]byte(text), block...) }
	if k, err := attest.ParseKey(with("# alice: sysadmin\n\n#not-after:2026-01-01T00:00:00+01:00\n")); err != nil || k.NotAfter.Format(time.RFC3339) != "2025-12-31T23:00:00Z" {
		t.Errorf("comments: %+v, %v", k, err)
	}
	for name, data := range map[string][]byte{
		"empty": nil, "private": private, "two keys": append(bytes.Clone(file), block...), "text after": append(bytes.Clone(file), "x"...),
		"underscore": with("# not_after: 2026-01-01T00:00:00Z\n"), "capitals": with("# Not-After: 2026-01-01T00:00:00Z\n"),
		"no time": with("# not-after: soon\n"), "twice": with("# not-after: 2026-01-01T00:00:00Z\n# not-after: 2027-01-01T00:00:00Z\n"),
		"no comment": with("not-after: 2026-01-01T00:00:00Z\n"), "end before begin": with("# not-before: 2026-01-02T00:00:00Z\n# not-after: 2026-01-01T00:00:00Z\n"),
		"damaged": bytes.Replace(file, []byte("MFkw"), []byte("MFkx"), 1), "long": make([]byte, 1<<20),
		"P-384": []byte("-----BEGIN PUBLIC KEY-----\nMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEqr3Vj4pL4TpT2rVPMO+SBWVNnUMHTrL8\n-----END PUBLIC KEY-----\n"),
	} {
		if k, err := attest.ParseKey(data); err == nil {
			t.Errorf("%s: read as %s", name, k.ID())
		}
	}
}
