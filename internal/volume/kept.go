package volume

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kept is a copy that outlived its Store, because a person may want to look at
// it. Neither Open nor Reap removes it.
type Kept struct {
	Name  string    `json:"name"`
	Since time.Time `json:"since"`
	Dir   string    `json:"dir"`
}

func (s *Store) keptPlace(name string) string {
	return filepath.Join(s.data, keptDir, url.PathEscape(name))
}

// Keep lets a copy outlive its Store. It is found again by the name, which no
// other may have and which may be anything that fits a file name, such as
// "RUN/TEST/VOLUME". Drop removes it, or Take and Release. Dir changes; what has
// the copy mounted keeps it.
func (c *Copy) Keep(name string) error {
	if name == "" || strings.ContainsRune(name, 0) || len(url.PathEscape(name)) > unix.NAME_MAX {
		return fmt.Errorf("keep %q: this is no name for a copy", name)
	}
	s := c.store
	if !s.disown(c) {
		return fmt.Errorf("keep %s: the copy was released before", name)
	}
	kept := s.keptPlace(name)
	err := unix.Renameat2(unix.AT_FDCWD, c.place, unix.AT_FDCWD, kept, unix.RENAME_NOREPLACE)
	if err != nil {
		s.adopt(c)
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("keep %s: there is one of that name; take another, or remove it with `slipway volumes rm`", name)
		}
		return fmt.Errorf("keep %s: %w", name, err)
	}
	c.place, c.Dir = kept, filepath.Join(kept, treeDir)
	return nil
}

// Kept lists the copies that are kept, the oldest first.
func (s *Store) Kept() ([]Kept, error) {
	entries, err := os.ReadDir(filepath.Join(s.data, keptDir))
	if err != nil {
		return nil, fmt.Errorf("list the copies that are kept: %w", err)
	}
	var all []Kept
	for _, e := range entries {
		name, err := url.PathUnescape(e.Name())
		info, statErr := e.Info()
		if err != nil || statErr != nil {
			continue // removed meanwhile, or none of ours
		}
		all = append(all, Kept{name, changed(info), filepath.Join(s.data, keptDir, e.Name(), treeDir)})
	}
	slices.SortFunc(all, func(a, b Kept) int { return a.Since.Compare(b.Since) })
	return all, nil
}

// Take makes a copy that was kept one of this Store again.
func (s *Store) Take(name string) (*Copy, error) {
	place := s.temporary("copy")
	err := os.Rename(s.keptPlace(name), place)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no copy is kept as %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("take %s: %w", name, err)
	}
	c := &Copy{Dir: filepath.Join(place, treeDir), store: s, place: place}
	s.adopt(c)
	return c, nil
}

// Drop removes a copy that was kept.
func (s *Store) Drop(name string) error {
	c, err := s.Take(name)
	if err != nil {
		return err
	}
	return c.Release()
}

// SaveKept makes a volume of what a copy holds that is kept, as Save does, and
// leaves it where it is.
func (s *Store) SaveKept(ctx context.Context, kept, name string) (Volume, error) {
	dir := filepath.Join(s.keptPlace(kept), treeDir)
	if _, err := os.Lstat(dir); err != nil {
		return Volume{}, fmt.Errorf("no copy is kept as %s: %w", kept, ErrNotFound)
	}
	return s.save(ctx, dir, name, "the copy of "+kept)
}

// content is where the tree of a volume is, or of a copy that is kept, and
// keeps the volume from being removed.
func (s *Store) content(ref string) (dir string, unlock func(), err error) {
	v, err := s.Find(ref)
	if errors.Is(err, ErrNotFound) && ref != "" {
		dir = filepath.Join(s.keptPlace(ref), treeDir)
		if _, statErr := os.Lstat(dir); statErr == nil {
			return dir, func() {}, nil
		}
	}
	if err != nil {
		return "", nil, err
	}
	unlock, err = s.hold(v.ID)
	return filepath.Join(s.volume(v.ID), treeDir), unlock, err
}
