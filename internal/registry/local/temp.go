package local

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"slipway/internal/flock"
)

// temp is content on its way in. Its writer holds a lock on it, which ends with
// the process: a temporary file that can be locked has lost its writer.
type temp struct {
	*os.File
	store *Store
	path  string
}

const tempPrefix = "new-"

func (s *Store) newTemp(ctx context.Context) (*temp, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for {
		t := &temp{store: s, path: path.Join(uploadsDir, tempPrefix+rand.Text())}
		f, err := s.root.OpenFile(t.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return nil, explain(err)
		}
		t.File = f
		if got, err := flock.Try(f, flock.Exclusive); !got || err != nil {
			_ = f.Close() // a store being opened was quicker, and removes it
			continue
		}
		if _, err := s.root.Lstat(t.path); err == nil {
			return t, nil
		}
		_ = f.Close() // it did
	}
}

// seal makes the bytes durable and read-only, before they get a name.
func (t *temp) seal() error {
	if err := t.Chmod(0o400); err != nil {
		return explain(err)
	}
	return explain(t.Sync())
}

// drop removes the temporary name; other names of the content stay.
func (t *temp) drop() {
	_ = t.store.root.Remove(t.path) // it may have been renamed; what stays is dropped by the next Open
	_ = t.Close()
}

// dropAbandoned removes the temporary files of killed processes.
func (s *Store) dropAbandoned() error {
	names, err := s.list(uploadsDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, tempPrefix) {
			continue
		}
		at := path.Join(uploadsDir, name)
		f, err := s.root.OpenFile(at, os.O_RDONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if got, _ := flock.Try(f, flock.Exclusive); got {
			err = s.root.Remove(at)
		}
		if err := errors.Join(err, f.Close()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
