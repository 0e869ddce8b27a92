package attest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestFormat holds every encoder to bytes that stock cosign v3.1.3 has verified:
// a bundle, the manifest around it and the key that signed it.
func TestFormat(t *testing.T) {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata/cosign", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	key, err := ParseKey(read("slipway.pub"))
	if err != nil {
		t.Fatal(err)
	}
	want := read("bundle-v0.3.json")
	b, err := decodeBundle(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := encodeBundle(key, b.Envelope.Payload, b.Envelope.Signatures[0].Sig)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the bundle is\n%s\nwant\n%s", got, want)
	}

	var s statement
	if err := json.Unmarshal(b.Envelope.Payload, &s); err != nil {
		t.Fatal(err)
	}
	payload, err := encode(s)
	if err != nil || !bytes.Equal(payload, b.Envelope.Payload) {
		t.Errorf("the statement is\n%s\nwant\n%s", payload, b.Envelope.Payload)
	}
	if d := s.Subject[0].Digest.sha256(); !bytes.Contains(read("bundle-manifest.json"), []byte(d)) {
		t.Errorf("the statement is about %s, the manifest is not", d)
	}

	at := time.Date(2026, 11, 23, 13, 31, 23, 0, time.UTC)
	subject := ocispec.Descriptor{MediaType: "application/vnd.docker.distribution.manifest.v2+json", Digest: s.Subject[0].Digest.sha256(), Size: 423}
	manifest, err := encodeManifest(subject, want, TestResultType, at)
	if err != nil || !bytes.Equal(manifest, read("bundle-manifest.json")) {
		t.Errorf("the manifest is\n%s\nwant\n%s", manifest, read("bundle-manifest.json"))
	}
	layer, err := Layer(manifest)
	if err != nil || layer.Digest != digest.FromBytes(want) || layer.Size != int64(len(want)) {
		t.Errorf("its layer is %v, %v", layer, err)
	}

	// Its signature is good, but of the higher form, which slipway never writes.
	if err := checkSignature(key, b); !errors.Is(err, ErrBadSignature) {
		t.Errorf("the higher form passes: %v", err)
	}
	if b.Envelope.Signatures[0].Sig, err = lowS(b.Envelope.Signatures[0].Sig); err != nil {
		t.Fatal(err)
	}
	if err := checkSignature(key, b); err != nil {
		t.Errorf("the lower form does not pass: %v", err)
	}
	// What it says was written by hand, and lacks what a gate asks for.
	if _, _, err := decodeStatement(b.Envelope.Payload); !errors.Is(err, ErrMalformed) {
		t.Errorf("a test result without a record: %v", err)
	}
}
