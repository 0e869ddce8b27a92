// Package attest makes and checks signed claims about one image digest: what a
// test came to, what an image was built from, who approved it. A claim is an
// in-toto Statement v1 in a DSSE envelope in a sigstore bundle v0.3, attached to
// the image as an OCI 1.1 referrer, so that stock cosign can check it too.
//
// Everything about an attestation follows from its statement and its key: each
// document has one encoding, and any other is refused, be it only a space. So
// there is nothing in one that can be changed unsigned, and its digest names it.
//
// The package refuses to fetch or store anything: bytes come in and go out. It
// knows no certificate authority, transparency log or password, and it never
// decides by itself what an environment asks for: Check is told.
package attest

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MediaType of the bundle, and artifact type of the manifest around it: what
// cosign looks for among an image's referrers.
const MediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Annotations that cosign chooses referrers by.
const (
	annotationContent   = "dev.sigstore.bundle.content"
	annotationPredicate = "dev.sigstore.bundle.predicateType"
	contentDSSE         = "dsse-envelope"
)

// Limits of what is read: a megabyte holds the claim of a build with thousands
// of arguments.
const (
	MaxManifest = 64 << 10
	MaxBundle   = 1 << 20
)

// Attestation is a signed claim, ready to be attached to the image it is about.
type Attestation struct {
	Descriptor ocispec.Descriptor // of Manifest; its digest is the attestation's name
	Manifest   []byte
	Bundle     []byte // the manifest's one layer
	Verified   Verified
}

// EmptyConfig is the config blob of every attestation's manifest.
func EmptyConfig() (ocispec.Descriptor, []byte) {
	return ocispec.DescriptorEmptyJSON, ocispec.DescriptorEmptyJSON.Data
}

// Attest signs p about the image described by subject. What comes out has
// been checked the way a verifier does it.
func (s Signer) Attest(ctx context.Context, subject ocispec.Descriptor, p Predicate) (Attestation, error) {
	payload, err := encodeStatement(subject.Digest, p)
	if err != nil {
		return Attestation{}, err
	}
	signature, err := s.sign(ctx, pae(payloadType, payload))
	if err != nil {
		return Attestation{}, fmt.Errorf("sign a claim about %s with key %s: %w", subject.Digest, s.Key.ID(), err)
	}
	if signature, err = lowS(signature); err != nil {
		return Attestation{}, fmt.Errorf("sign a claim about %s with key %s: %w", subject.Digest, s.Key.ID(), err)
	}
	bundle, err := encodeBundle(s.Key, payload, signature)
	if err != nil {
		return Attestation{}, err
	}
	manifest, err := encodeManifest(subject, bundle, p.Type(), p.signed())
	if err != nil {
		return Attestation{}, err
	}
	verified, err := Verify(subject, manifest, bundle, []Key{s.Key}, p.signed())
	if err != nil {
		return Attestation{}, fmt.Errorf("what key %s signed about %s does not hold: %w", s.Key.ID(), subject.Digest, err)
	}
	return Attestation{
		Descriptor: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, ArtifactType: MediaType,
			Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
		},
		Manifest: manifest, Bundle: bundle, Verified: verified,
	}, nil
}

// encodeManifest is the one manifest that carries a bundle. Its fields stand
// in the order of their names.
func encodeManifest(subject ocispec.Descriptor, bundle []byte, predicateType string, at time.Time) ([]byte, error) {
	type descriptor struct {
		Digest    digest.Digest `json:"digest"`
		MediaType string        `json:"mediaType"`
		Size      int64         `json:"size"`
	}
	config := ocispec.DescriptorEmptyJSON
	return encode(struct {
		Annotations   map[string]string `json:"annotations"`
		ArtifactType  string            `json:"artifactType"`
		Config        descriptor        `json:"config"`
		Layers        []descriptor      `json:"layers"`
		MediaType     string            `json:"mediaType"`
		SchemaVersion int               `json:"schemaVersion"`
		Subject       descriptor        `json:"subject"`
	}{
		Annotations: map[string]string{
			annotationContent: contentDSSE, annotationPredicate: predicateType, ocispec.AnnotationCreated: at.UTC().Format(time.RFC3339),
		},
		ArtifactType:  MediaType,
		Config:        descriptor{config.Digest, config.MediaType, config.Size},
		Layers:        []descriptor{{digest.FromBytes(bundle), MediaType, int64(len(bundle))}},
		MediaType:     ocispec.MediaTypeImageManifest,
		SchemaVersion: 2,
		Subject:       descriptor{subject.Digest, subject.MediaType, subject.Size},
	})
}

// Layer gives the descriptor of the bundle that a manifest carries, for whoever
// is to fetch it. What it says is checked by Verify, not here.
func Layer(manifest []byte) (ocispec.Descriptor, error) {
	if len(manifest) > MaxManifest {
		return ocispec.Descriptor{}, refuse(ErrMalformed, "the manifest has %d bytes; at most %d are read", len(manifest), MaxManifest)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return ocispec.Descriptor{}, refuse(ErrMalformed, "the manifest is not readable: %v", err)
	}
	if len(m.Layers) != 1 || m.Layers[0].MediaType != MediaType {
		return ocispec.Descriptor{}, refuse(ErrMalformed, "the manifest carries no single sigstore bundle v0.3")
	}
	layer := m.Layers[0]
	if err := layer.Digest.Validate(); err != nil {
		return ocispec.Descriptor{}, refuse(ErrMalformed, "the bundle's digest %q: %v", layer.Digest, err)
	}
	if layer.Size < 0 || layer.Size > MaxBundle {
		return ocispec.Descriptor{}, refuse(ErrMalformed, "the bundle has %d bytes; at most %d are read", layer.Size, MaxBundle)
	}
	return ocispec.Descriptor{MediaType: layer.MediaType, Digest: layer.Digest, Size: layer.Size}, nil
}
