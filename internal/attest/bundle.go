package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"math/big"
	"strconv"
)

// payloadType says that the signed bytes are an in-toto statement.
const payloadType = "application/vnd.in-toto+json"

// pae is DSSE's pre-authentication encoding: what is signed.
// https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md
func pae(kind string, payload []byte) []byte {
	b := []byte("DSSEv1 " + strconv.Itoa(len(kind)) + " " + kind + " " + strconv.Itoa(len(payload)) + " ")
	return append(b, payload...)
}

// bundle is a sigstore bundle v0.3 whose key the verifier knows beforehand.
// https://github.com/sigstore/protobuf-specs, sigstore_bundle.proto. The fields
// stand in the order of their names.
type bundle struct {
	Envelope     envelope             `json:"dsseEnvelope"`
	MediaType    string               `json:"mediaType"`
	Verification verificationMaterial `json:"verificationMaterial"`
}

type verificationMaterial struct {
	PublicKey struct {
		Hint string `json:"hint"`
	} `json:"publicKey"`
}

type envelope struct {
	Payload     []byte      `json:"payload"`
	PayloadType string      `json:"payloadType"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	Sig []byte `json:"sig"`
}

func encodeBundle(key Key, payload, sig []byte) ([]byte, error) {
	b := bundle{Envelope: envelope{payload, payloadType, []signature{{sig}}}, MediaType: MediaType}
	b.Verification.PublicKey.Hint = key.hint()
	return encode(b)
}

// decodeBundle takes a bundle apart, strictly, without looking at its signature.
func decodeBundle(data []byte) (b bundle, err error) {
	if len(data) > MaxBundle {
		return b, refuse(ErrMalformed, "the bundle has %d bytes; at most %d are read", len(data), MaxBundle)
	}
	if err := decode(data, &b); err != nil {
		return b, refuse(ErrMalformed, "the bundle is not readable: %v", err)
	}
	again, err := encode(b)
	if err != nil || !bytes.Equal(again, data) {
		return b, refuse(ErrMalformed, "the bundle is not written in its one form: a key twice, a space or a field that slipway does not write")
	}
	switch {
	case b.MediaType != MediaType:
		return b, refuse(ErrMalformed, "the bundle is of type %q, not %s", b.MediaType, MediaType)
	case b.Envelope.PayloadType != payloadType:
		return b, refuse(ErrMalformed, "the payload is of type %q, not %s", b.Envelope.PayloadType, payloadType)
	case len(b.Envelope.Signatures) != 1:
		return b, refuse(ErrMalformed, "the envelope has %d signatures; slipway writes one", len(b.Envelope.Signatures))
	}
	return b, nil
}

// checkSignature says whether key signed the payload of b.
func checkSignature(key Key, b bundle) error {
	sig := b.Envelope.Signatures[0].Sig
	sum := sha256.Sum256(pae(b.Envelope.PayloadType, b.Envelope.Payload))
	if !ecdsa.VerifyASN1(key.Public, sum[:], sig) {
		return refuse(ErrBadSignature, "the signature is not that of key %s over this payload", key.ID())
	}
	if low, err := lowS(sig); err != nil || !bytes.Equal(low, sig) {
		return refuse(ErrBadSignature, "the signature of key %s is not in its lower form: somebody has rewritten it", key.ID())
	}
	return nil
}

// lowS gives the lower of the two forms every ECDSA signature has, (r, s) and
// (r, n-s), so that nobody without the key can make another of it.
func lowS(sig []byte) ([]byte, error) {
	var v struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(sig, &v); err != nil || len(rest) > 0 {
		return nil, errors.New("the signature is not an ASN.1 ECDSA one; a signer prints the DER bytes, or their base64")
	}
	n := elliptic.P256().Params().N
	if v.S.Cmp(new(big.Int).Rsh(n, 1)) > 0 {
		v.S.Sub(n, v.S)
	}
	return asn1.Marshal(v)
}
