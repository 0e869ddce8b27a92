package attest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Signer signs with one key.
type Signer struct {
	Key  Key
	sign func(ctx context.Context, message []byte) (asn1 []byte, err error)
}

// NewSigner makes a key that is valid from now on, until notAfter where that is
// not zero. The second result is the file of its private half.
func NewSigner(now, notAfter time.Time) (Signer, []byte, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Signer{}, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Signer{}, nil, fmt.Errorf("encode a key: %w", err)
	}
	key := Key{Public: &private.PublicKey, NotBefore: now.UTC().Truncate(time.Second)}
	if !notAfter.IsZero() {
		key.NotAfter = notAfter.UTC().Truncate(time.Second)
	}
	return signWith(private, key), pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: der}), nil
}

// ParseSigner reads a private key's file (PKCS#8 PEM, P-256). key is the file of
// its public half, which has the window; nil where there is none.
func ParseSigner(private, key []byte) (Signer, error) {
	block, rest := pem.Decode(private)
	if block == nil || block.Type != pemPrivate || len(bytes.TrimSpace(rest)) > 0 {
		return Signer{}, fmt.Errorf("not one unencrypted PKCS#8 key; it begins with -----BEGIN %s-----", pemPrivate)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Signer{}, fmt.Errorf("its private key is damaged: %w", err)
	}
	ec, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return Signer{}, errors.New("it is not a P-256 key; `slipway keys generate` makes one")
	}
	public := Key{Public: &ec.PublicKey}
	if key == nil {
		return signWith(ec, public), nil
	}
	listed, err := ParseKey(key)
	if err != nil {
		return Signer{}, fmt.Errorf("the public key beside it: %w", err)
	}
	if !listed.Equal(public) {
		return Signer{}, errors.New("the public key beside it is another key's")
	}
	return signWith(ec, listed), nil
}

func signWith(private *ecdsa.PrivateKey, key Key) Signer {
	return Signer{Key: key, sign: func(_ context.Context, message []byte) ([]byte, error) {
		sum := sha256.Sum256(message)
		return ecdsa.SignASN1(rand.Reader, private, sum[:])
	}}
}

// CommandSigner signs by running argv: it gets the message to sign on its
// standard input, hashes it with SHA-256 itself (as `openssl dgst -sha256 -sign`
// does), and prints the ASN.1 DER signature or its base64. key is its public half.
func CommandSigner(argv []string, key Key) Signer {
	return Signer{Key: key, sign: func(ctx context.Context, message []byte) ([]byte, error) {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		var out, errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(message), &out, &errs
		cmd.WaitDelay = time.Second // for what it may have started and left with our pipes
		if err := cmd.Run(); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, fmt.Errorf("the signer %s: %w: %s", argv[0], err, strings.TrimSpace(errs.String()))
		}
		if text, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(out.String()), "")); err == nil {
			return text, nil
		}
		return out.Bytes(), nil
	}}
}
