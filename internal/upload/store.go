package upload

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Store keeps uploads on a server, by the digests of their bytes.
type Store struct {
	Dir   string
	Limit int64 // bytes of one, packed and unpacked
}

// ErrNone says that an upload is not there, or not any more.
var ErrNone = errors.New("no such upload is there any more; upload it again")

// ErrTooLarge says that it has more than the store's limit.
var ErrTooLarge = errors.New("the upload is too large")

const suffix = ".tar.zst"

func (s Store) file(d digest.Digest) (string, error) {
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return "", ErrNone
	}
	return filepath.Join(s.Dir, d.Encoded()+suffix), nil
}

// Put keeps what in gives, to its end. When it returns, that is on the disk.
func (s Store) Put(in io.Reader) (d digest.Digest, size int64, err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return "", 0, err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, ".new-"+rand.Text()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	h := sha256.New()
	size, err = io.Copy(io.MultiWriter(f, h), io.LimitReader(in, s.Limit+1))
	if err == nil && size > s.Limit {
		err = ErrTooLarge
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", size, err
	}
	d = digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.Sum(nil)))
	path, err := s.file(d)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(s.Dir)
	}
	return d, size, err
}

// Use begins an upload's time anew: a run was made of it.
func (s Store) Use(d digest.Digest) error {
	path, err := s.file(d)
	if err != nil {
		return err
	}
	now := time.Now()
	return none(os.Chtimes(path, now, now))
}

// Unpack writes an upload out.
func (s Store) Unpack(ctx context.Context, d digest.Digest, dir string) error {
	path, err := s.file(d)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return none(err)
	}
	defer f.Close()
	return Unpack(ctx, f, dir, s.Limit)
}

// Sweep removes what was last used before a time, but for what is needed still.
func (s Store) Sweep(before time.Time, needed map[digest.Digest]bool) error {
	all, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range all {
		info, infoErr := e.Info()
		if infoErr != nil || info.ModTime().After(before) {
			continue // gone, or in use
		}
		encoded, _ := strings.CutSuffix(e.Name(), suffix)
		if !needed[digest.NewDigestFromEncoded(digest.SHA256, encoded)] {
			err = errors.Join(err, os.Remove(filepath.Join(s.Dir, e.Name())))
		}
	}
	return err
}

func none(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("write %s to the disk: %w", dir, err)
	}
	return nil
}
