package secret

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// decrypt opens an age-encrypted file (age-encryption.org/v1), binary or armored.
// The identities are read anew each time: they may be replaced while slipway runs.
func (r Resolver) decrypt(name string, sealed []byte) ([]byte, error) {
	if r.Identity == "" {
		return nil, fmt.Errorf("%s is encrypted, and there is no key for it here; give the file of an age identity with --age-identity", name)
	}
	f, err := os.Open(r.Identity)
	if err != nil {
		return nil, fmt.Errorf("--age-identity: %w", err)
	}
	defer f.Close()
	identities, err := age.ParseIdentities(f)
	if err != nil {
		// What the library says may quote the file, and the file is a key.
		return nil, fmt.Errorf("--age-identity %s: it holds something else than age identities (lines of AGE-SECRET-KEY-…); make one with age-keygen", r.Identity)
	}
	in := bufio.NewReader(bytes.NewReader(sealed))
	from := io.Reader(in)
	if start, err := in.Peek(len(armor.Header)); err == nil && string(start) == armor.Header {
		from = armor.NewReader(in)
	}
	plain, err := age.Decrypt(from, identities...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, fmt.Errorf("%s is not encrypted for the identities of %s; encrypt it for their recipient (age-keygen -y %s prints it), or give another --age-identity", name, r.Identity, r.Identity)
	}
	var data []byte
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(plain, maxSize+1))
	}
	if err != nil {
		// The library quotes what it does not understand, and that may be the secret itself.
		return nil, fmt.Errorf("%s is no whole age-encrypted file; encrypt the secret anew", name)
	}
	return data, nil
}
