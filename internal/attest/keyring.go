package attest

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Keyring is a directory of keys: ID.pub for each, and ID.key for those whose
// private half is here.
type Keyring struct{ Dir string }

// Held is a key of a keyring.
type Held struct {
	Key
	Private bool // its private half is here
}

// ErrNoKey says that there is nothing to sign with.
var ErrNoKey = errors.New("no key to sign with; `slipway keys generate` makes one")

const (
	publicSuffix  = ".pub"
	privateSuffix = ".key"
)

// Generate makes the first signing key. Where there is one that is valid, it
// refuses: a second one is a rotation.
func (r Keyring) Generate(now, notAfter time.Time) (Key, error) {
	switch s, err := r.Signer(now); {
	case err == nil:
		return Key{}, fmt.Errorf("key %s signs here already; `slipway keys rotate` puts a new one in its place", s.Key.ID())
	case !errors.Is(err, ErrNoKey):
		return Key{}, err
	}
	s, private, err := NewSigner(now, notAfter)
	if err != nil {
		return Key{}, err
	}
	return s.Key, r.put(s.Key, private)
}

// Rotate makes a new signing key and ends the time of those before it: what
// they have signed stays valid, what they sign from now on is not. It gives the
// new key and the ended ones.
func (r Keyring) Rotate(now, notAfter time.Time) (Key, []Key, error) {
	all, err := r.List()
	if err != nil {
		return Key{}, nil, err
	}
	s, private, err := NewSigner(now, notAfter)
	if err != nil {
		return Key{}, nil, err
	}
	if err := r.put(s.Key, private); err != nil {
		return Key{}, nil, err
	}
	var ended []Key
	for _, h := range all {
		if !h.Private || !h.Valid(now) {
			continue
		}
		h.NotAfter = s.Key.NotBefore
		if h.NotAfter.Before(h.NotBefore) {
			h.NotAfter = h.NotBefore
		}
		if err := r.put(h.Key, nil); err != nil {
			return Key{}, nil, err
		}
		ended = append(ended, h.Key)
	}
	return s.Key, ended, nil
}

// List gives the keys, the newest first.
func (r Keyring) List() ([]Held, error) {
	names, err := filepath.Glob(filepath.Join(r.Dir, "*"+publicSuffix))
	if err != nil {
		return nil, fmt.Errorf("list the keys: %w", err)
	}
	var all []Held
	for _, name := range names {
		k, err := ReadKey(name)
		if err != nil {
			return nil, err
		}
		_, err = os.Lstat(strings.TrimSuffix(name, publicSuffix) + privateSuffix)
		all = append(all, Held{k, err == nil})
	}
	slices.SortFunc(all, newerFirst)
	return all, nil
}

// newerFirst orders keys by their beginning, and what began in one second by
// their end: the one that was rotated away comes last.
func newerFirst(a, b Held) int {
	if c := b.NotBefore.Compare(a.NotBefore); c != 0 {
		return c
	}
	if a.NotAfter.IsZero() != b.NotAfter.IsZero() {
		if a.NotAfter.IsZero() {
			return -1
		}
		return 1
	}
	return cmp.Or(b.NotAfter.Compare(a.NotAfter), strings.Compare(a.ID(), b.ID()))
}

// Signer gives the newest key that may sign now; ErrNoKey where there is none.
func (r Keyring) Signer(now time.Time) (Signer, error) {
	all, err := r.List()
	if err != nil {
		return Signer{}, err
	}
	for _, h := range all {
		if h.Private && h.Valid(now) {
			name := filepath.Join(r.Dir, h.ID())
			return ReadSigner(name+privateSuffix, name+publicSuffix)
		}
	}
	return Signer{}, ErrNoKey
}

// ReadKey reads the file of a public key.
func ReadKey(name string) (Key, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return Key{}, fmt.Errorf("read a public key: %w", err)
	}
	k, err := ParseKey(data)
	if err != nil {
		return Key{}, fmt.Errorf("the public key %s: %w", name, err)
	}
	return k, nil
}

// ReadSigner reads the file of a private key that nobody else may read. The
// file public has its window; it may be missing.
func ReadSigner(private, public string) (Signer, error) {
	info, err := os.Stat(private)
	if err != nil {
		return Signer{}, fmt.Errorf("read a private key: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 { // there modes say nothing
		return Signer{}, fmt.Errorf("the private key %s may be read by others; chmod 600 %s, and rotate it if somebody did", private, private)
	}
	data, err := os.ReadFile(private)
	if err != nil {
		return Signer{}, fmt.Errorf("read a private key: %w", err)
	}
	key, err := os.ReadFile(public)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Signer{}, fmt.Errorf("read a public key: %w", err)
	}
	s, err := ParseSigner(data, key)
	if err != nil {
		return Signer{}, fmt.Errorf("the private key %s: %w", private, err)
	}
	return s, nil
}

// put writes a key, the private half first: a public one alone would be listed
// and could not sign.
func (r Keyring) put(k Key, private []byte) error {
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return fmt.Errorf("keep a key: %w", err)
	}
	if private != nil {
		if err := replaceFile(filepath.Join(r.Dir, k.ID()+privateSuffix), private, 0o600); err != nil {
			return err
		}
	}
	return replaceFile(filepath.Join(r.Dir, k.ID()+publicSuffix), k.Marshal(), 0o644)
}

// WritePair writes a private key to name and its public half to name.pub, and
// refuses to write over either.
func WritePair(name string, k Key, private []byte) error {
	for _, f := range []string{name, name + publicSuffix} {
		if _, err := os.Lstat(f); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already; name another file", f)
		}
	}
	if err := replaceFile(name, private, 0o600); err != nil {
		return err
	}
	return replaceFile(name+publicSuffix, k.Marshal(), 0o644)
}

// replaceFile puts data where name is, whole or not at all, also over a power cut.
func replaceFile(name string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keep a key: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()) // closed: Windows gives no open file another name
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep a key: %w", err), os.Remove(f.Name()))
	}
	if runtime.GOOS == "windows" { // which flushes no directory
		return nil
	}
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("keep a key: %w", err)
	}
	return nil
}
