package store

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Kept is what a failed test that stays frozen needs of this root. It is written
// before any of it is taken, and dropped after all of it is given back.
type Kept struct {
	Name   string   `json:"name"` // RUN/TASK
	Task   string   `json:"task"`
	Dir    string   `json:"dir"`              // of the pipeline file
	Copies []string `json:"copies,omitempty"` // of volumes, by the names they are kept under

	At      time.Time `json:"at"`
	Memory  int64     `json:"memory"`            // bytes it may take
	Secrets bool      `json:"secrets,omitempty"` // some are in it
}

const keptDir = "records/kept"

func keptName(name string) string { return filepath.Join(keptDir, url.PathEscape(name)) }

// PutKept records it.
func (s *Store) PutKept(k Kept) error { return s.put(keptName(k.Name), k) }

// AllKept lists what is recorded, in no order that means anything.
func (s *Store) AllKept() ([]Kept, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, keptDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list what failed tests keep: %w", err)
	}
	var all []Kept
	for _, e := range entries {
		var k Kept
		if strings.HasPrefix(e.Name(), ".") || !s.get(filepath.Join(keptDir, e.Name()), &k) {
			continue // being written, or damaged: what it took stays taken
		}
		all = append(all, k)
	}
	return all, nil
}

// DropKept forgets it.
func (s *Store) DropKept(name string) error {
	if s.readOnly {
		return errReadOnly
	}
	if err := os.Remove(filepath.Join(s.dir, keptName(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what %s keeps: %w", name, err)
	}
	return nil
}
