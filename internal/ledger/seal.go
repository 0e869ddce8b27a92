package ledger

import (
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/chacha20poly1305"
)

// Key seals the secrets in a ledger. It lies outside the database: who has a
// backup of the database alone has no secret.
type Key [chacha20poly1305.KeySize]byte

// ErrOtherKey says that secrets in the ledger are sealed with another key.
var ErrOtherKey = errors.New("a sealed value does not open: this is not the key that it was sealed with")

// ReadKey reads the key at path, and makes one where there is none.
func ReadKey(path string) (k Key, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err == nil && len(data) != len(k) {
		err = fmt.Errorf("%d bytes, not %d", len(data), len(k))
	}
	if err != nil {
		return k, fmt.Errorf("read the ledger's key %s: %w; bring it back from a backup: without it the secrets in the ledger are lost", path, err)
	}
	return Key(data), nil
}

// makeKey puts a whole key in its place, or takes the one that another process
// has put there meanwhile.
func makeKey(path string) (k Key, err error) {
	rand.Read(k[:]) // never fails: crypto/rand's contract since Go 1.24
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return k, fmt.Errorf("make the ledger's key: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".key-*")
	if err != nil {
		return k, fmt.Errorf("make the ledger's key: %w", err)
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	_, err = temp.Write(k[:])
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Link(temp.Name(), path)
	}
	if errors.Is(err, fs.ErrExist) {
		return ReadKey(path)
	}
	if err != nil {
		err = fmt.Errorf("make the ledger's key: %w", err)
	}
	return k, err
}

// sealer seals values by XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03).
type sealer struct{ aead cipher.AEAD }

func newSealer(k Key) (sealer, error) {
	aead, err := chacha20poly1305.NewX(k[:])
	return sealer{aead}, err
}

// seal encrypts a value for one place: elsewhere it does not open.
func (s sealer) seal(place string, value []byte) []byte {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(value)+s.aead.Overhead())
	rand.Read(nonce)
	return s.aead.Seal(nonce, nonce, value, []byte(place))
}

func (s sealer) open(place string, sealed []byte) ([]byte, error) {
	if len(sealed) < s.aead.NonceSize() {
		return nil, errors.New("a sealed value is cut off")
	}
	value, err := s.aead.Open(nil, sealed[:s.aead.NonceSize()], sealed[s.aead.NonceSize():], []byte(place))
	if err != nil {
		return nil, ErrOtherKey
	}
	return value, nil
}
