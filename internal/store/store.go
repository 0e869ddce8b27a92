// Package store keeps what runs leave behind for later runs: their records, and
// which inputs were built and tested with which outcome. Everything is a small
// file, written whole and renamed into place, so that a crash leaves the old
// record or the new one and a reader needs no lock.
//
// It refuses to be the truth about an image: a record says what to look for,
// the content store says whether it is there. Nothing in it can promote
// anything, and losing it costs time, never correctness.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Store is a directory of records. Open it, or use ReadOnly, which never writes.
type Store struct {
	dir      string
	readOnly bool
}

// Open prepares the records under root, making directories where missing.
func Open(root string) (*Store, error) {
	s := &Store{dir: root}
	for _, d := range []string{runsDir, testsDir, buildsDir, stepsDir, inputsDir, basesDir, fetchedDir} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			return nil, fmt.Errorf("prepare the records: %w; give a writable directory with --root", err)
		}
	}
	return s, nil
}

// ReadOnly gives the records under root as they are; a missing root is an empty store.
func ReadOnly(root string) *Store { return &Store{dir: root, readOnly: true} }

const (
	runsDir    = "runs"
	testsDir   = "records/tests"
	buildsDir  = "records/builds"
	stepsDir   = "records/steps"
	inputsDir  = "records/inputs"
	basesDir   = "records/bases"
	fetchedDir = "records/fetched"
)

// errReadOnly is a defect of the caller: a read-only store was asked to write.
var errReadOnly = errors.New("the records were opened read-only")

// put writes v as JSON to name under the store, whole or not at all. It
// survives a kill, and a power cut once the kernel has written it.
func (s *Store) put(name string, v any) error {
	if s.readOnly {
		return errReadOnly
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", name, err)
	}
	return replace(filepath.Join(s.dir, name), data)
}

// get reads name into v and reports whether it was there. A record that cannot
// be parsed counts as absent: it is a cache, and the next run writes it anew.
func (s *Store) get(name string, v any) bool {
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	return err == nil && json.Unmarshal(data, v) == nil
}

// replace writes data to a temporary file beside path and renames it into place.
func replace(path string, data []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close() // closed already, or what went wrong is in err
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write record %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write record %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write record %s: %w", path, err)
	}
	return nil
}

// exists reports whether name is there.
func (s *Store) exists(name string) bool {
	_, err := os.Lstat(filepath.Join(s.dir, name))
	return !errors.Is(err, fs.ErrNotExist) && err == nil
}
