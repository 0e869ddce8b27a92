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

// A name is a small file with an ID in it, replaced by rename: it names the old
// volume or the new one, whenever the process dies.

func (s *Store) nameFile(name string) string {
	return filepath.Join(s.data, namesDir, url.PathEscape(name))
}

// names gives the ID of every name.
func (s *Store) names() (map[string]string, error) {
	dir := filepath.Join(s.data, namesDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the names of volumes: %w", err)
	}
	names := make(map[string]string, len(entries))
	for _, e := range entries {
		name, err := url.PathUnescape(e.Name())
		if err != nil {
			continue // none of ours
		}
		id, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read the name %s: %w", name, err)
		}
		names[name] = strings.TrimSpace(string(id))
	}
	return names, nil
}

func (s *Store) setName(name, id string) error {
	if err := writeFile(s.temporary("name"), s.nameFile(name), []byte(id+"\n")); err != nil {
		return fmt.Errorf("name volume %s %s: %w", short(id), name, err)
	}
	return nil
}

// holdNames keeps every other process from changing names or removing volumes.
func (s *Store) holdNames(ctx context.Context) (unlock func(), err error) {
	f, err := waitLock(ctx, filepath.Join(s.data, refsFile), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	return func() { closeFile(f) }, nil
}

// Tag gives the volume of ref (a name or an ID) another name, or moves that
// name to it. A snapshot of a named volume is Tag(volume, snapshot), going back
// to it Tag(snapshot, volume).
func (s *Store) Tag(ctx context.Context, ref, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	unlock, err := s.holdNames(ctx)
	if err != nil {
		return err
	}
	v, err := s.Find(ref)
	if err == nil {
		err = s.setName(name, v.ID)
	}
	unlock()
	if err != nil {
		return err
	}
	s.used(v.ID)
	return s.sweep(ctx)
}

// Remove takes a name away, and with its last name the volume. An ID removes a
// volume that has no name. Copies that run go on.
func (s *Store) Remove(ctx context.Context, ref string) error {
	unlock, err := s.holdNames(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	v, err := s.Find(ref)
	if err != nil {
		return err
	}
	if i := slices.Index(v.Names, ref); i >= 0 {
		if err := os.Remove(s.nameFile(ref)); err != nil {
			return fmt.Errorf("remove %s: %w", ref, err)
		}
		v.Names = slices.Delete(v.Names, i, i+1)
		if len(v.Names) > 0 {
			return nil
		}
	}
	if len(v.Names) > 0 {
		return fmt.Errorf("%s has names (%s); remove those", short(v.ID), strings.Join(v.Names, ", "))
	}
	return s.removeVolume(v.ID)
}

// Prune removes the volumes without a name that nobody used for so long, and
// says which. One that is being copied or exported stays.
func (s *Store) Prune(ctx context.Context, unused time.Duration) ([]Volume, error) {
	unlock, err := s.holdNames(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	var gone []Volume
	for _, v := range all {
		if len(v.Names) > 0 || time.Since(v.Used) < unused {
			continue
		}
		if err := s.removeVolume(v.ID); errors.Is(err, errInUse) {
			continue
		} else if err != nil {
			return gone, err
		}
		gone = append(gone, v)
	}
	return gone, errors.Join(s.forget(), s.clean(), s.trim())
}

// sweep removes saved volumes that lost their last name, to a crash or to Tag.
func (s *Store) sweep(ctx context.Context) error {
	unlock, err := s.holdNames(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	ids, err := s.ids()
	if err != nil {
		return err
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, id := range names {
		named[id] = true
	}
	for _, id := range ids {
		if strings.HasPrefix(id, saved) && !named[id] {
			if err := s.removeVolume(id); err != nil && !errors.Is(err, errInUse) {
				return err
			}
		}
	}
	return nil
}

// removeVolume takes the volume out of sight by one rename, then frees it.
func (s *Store) removeVolume(id string) error {
	lock, err := os.Open(filepath.Join(s.volume(id), volumeFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer closeFile(lock)
	if err := flock(lock, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("remove volume %s: %w", short(id), errInUse)
	} else if err != nil {
		return err
	}
	place := s.temporary("gone")
	if err := os.Rename(s.volume(id), place); err != nil {
		return fmt.Errorf("remove volume %s: %w", short(id), err)
	}
	if err := s.trees.remove(place); err != nil {
		return fmt.Errorf("remove volume %s: %w", short(id), err)
	}
	return nil
}

var errInUse = errors.New("it is being copied or exported; try again when that is done")

// hold keeps a volume from being removed.
func (s *Store) hold(id string) (unlock func(), err error) {
	f, err := os.Open(filepath.Join(s.volume(id), volumeFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", short(id), ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) { // its remover has it
		closeFile(f)
		return nil, fmt.Errorf("%s: %w", short(id), ErrNotFound)
	} else if err != nil {
		closeFile(f)
		return nil, err
	}
	if _, err := os.Stat(s.volume(id)); err != nil { // removed between the two
		closeFile(f)
		return nil, fmt.Errorf("%s: %w", short(id), ErrNotFound)
	}
	return func() { closeFile(f) }, nil
}
