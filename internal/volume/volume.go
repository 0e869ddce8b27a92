// Package volume keeps the data that sandboxes mount: seeds, snapshots and the
// copies that runs write in. A volume never changes; it is found by the digest
// of what it holds, and names move between volumes. A run gets a copy-on-write
// copy: milliseconds whatever the size, where a file system under the store can
// share blocks. Where the host's cannot, the store brings its own in a sparse
// image file; where that is impossible too, it copies and says so.
//
// It refuses devices, to follow a symlink out of a tree, to change a volume that
// exists, and to remove anything that it did not make: its own loop device,
// mount and directories are all it touches. It speaks to no registry: Export and
// Import hand blobs over by func.
package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// ErrNotFound: no volume has that name or ID.
var ErrNotFound = errors.New("no such volume")

// SourceError: what was to become a volume cannot, and trying again would not
// change that. The user has to mend the source.
type SourceError struct{ err error }

func (e *SourceError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *SourceError) Unwrap() error { return e.err }

func badSource(format string, args ...any) error { return &SourceError{fmt.Errorf(format, args...)} }

// Volume is content that never changes.
type Volume struct {
	ID      string        `json:"id"`              // hex of Digest, or "s-…" for a saved copy
	Digest  digest.Digest `json:"digest,omitzero"` // of the tree (see hashTree); empty for a saved copy
	Names   []string      `json:"names,omitzero"`  // sorted; empty: only its ID finds it
	From    string        `json:"from"`            // what it came from first, for people
	Created time.Time     `json:"created"`         // here
	Used    time.Time     `json:"used"`            // the last copy or import of the same content
	Size    int64         `json:"size"`            // bytes of all files
	Files   int           `json:"files"`           // entries of every kind
}

// namePattern: "testdata", "shop/testdata".
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$`)

func checkName(name string) error {
	if len(name) > 128 || !namePattern.MatchString(name) {
		return fmt.Errorf("%q is no name of a volume: use up to 128 letters, digits and _ . - /, each part beginning with a letter or digit", name)
	}
	return nil
}

// saved is how the ID of a volume begins that has no digest. Nothing finds such
// a one again without a name: it goes with its last name.
const saved = "s-"

// Find gives the volume of a name, an ID, "sha256:…", or the beginning of an ID
// that no other has (six characters or more). The error is ErrNotFound or says
// which volumes a beginning fits.
func (s *Store) Find(ref string) (Volume, error) {
	names, err := s.names()
	if err != nil {
		return Volume{}, err
	}
	if id, ok := names[ref]; ok {
		return s.read(id, names)
	}
	id := strings.TrimPrefix(ref, "sha256:")
	ids, err := s.ids()
	if err != nil {
		return Volume{}, err
	}
	var found []string
	for _, have := range ids {
		if have == id {
			return s.read(id, names)
		}
		if len(id) >= 6 && strings.HasPrefix(have, id) {
			found = append(found, have)
		}
	}
	switch len(found) {
	case 0:
		return Volume{}, fmt.Errorf("%s: %w; `slipway volumes ls` lists them", ref, ErrNotFound)
	case 1:
		return s.read(found[0], names)
	}
	return Volume{}, fmt.Errorf("%s begins the IDs of %d volumes (%s…); write more of it", ref, len(found), strings.Join(found[:2], ", "))
}

// List gives every volume, the one used last first.
func (s *Store) List() ([]Volume, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var all []Volume
	for _, id := range ids {
		v, err := s.read(id, names)
		if errors.Is(err, ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b Volume) int { return b.Used.Compare(a.Used) })
	return all, nil
}

// ids are those of all volumes, sorted.
func (s *Store) ids() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.data, volumesDir))
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	ids := make([]string, len(entries))
	for i, e := range entries {
		ids[i] = e.Name()
	}
	return ids, nil
}

// read gives one volume; names is name → ID of all.
func (s *Store) read(id string, names map[string]string) (Volume, error) {
	dir := s.volume(id)
	data, err := os.ReadFile(filepath.Join(dir, volumeFile))
	if errors.Is(err, os.ErrNotExist) {
		return Volume{}, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	if err != nil {
		return Volume{}, fmt.Errorf("read volume %s: %w", id, err)
	}
	var v Volume
	if err := json.Unmarshal(data, &v); err != nil {
		return Volume{}, fmt.Errorf("read volume %s: %w; remove %s", id, err, dir)
	}
	if info, err := os.Stat(dir); err == nil {
		v.Used = info.ModTime()
	}
	for name, of := range names {
		if of == id {
			v.Names = append(v.Names, name)
		}
	}
	slices.Sort(v.Names)
	return v, nil
}

func (s *Store) volume(id string) string { return filepath.Join(s.data, volumesDir, id) }

// used notes that a volume was wanted, for Prune.
func (s *Store) used(id string) {
	now := time.Now()
	if err := os.Chtimes(s.volume(id), now, now); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Debug().Err(err).Str("volume", id).Msg("the time of its last use is not noted")
	}
}
