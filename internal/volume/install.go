package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// install makes a volume of place, which holds its tree: complete on disk first,
// then under its ID by one rename. A volume of that ID that is there already has
// the same content and stays. With names held, the caller gives it one.
func (s *Store) install(place string, v Volume) error {
	v.Names, v.Created = nil, time.Now().UTC().Truncate(time.Second)
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(place, volumeFile), append(data, '\n'), 0o600); err != nil {
		return err
	}
	if err := s.trees.seal(filepath.Join(place, treeDir)); err != nil {
		return err
	}
	if err := s.sync(); err != nil {
		return err
	}
	err = os.Rename(place, s.volume(v.ID))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		s.used(v.ID)
		return nil
	}
	if err != nil {
		return fmt.Errorf("install volume %s: %w", v.ID, err)
	}
	return syncDir(filepath.Join(s.data, volumesDir))
}

// sync waits until everything in the store's file system is on disk.
func (s *Store) sync() error {
	fd, err := openDir(s.data)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("write the volume store to disk: %w", err)
	}
	return nil
}

// installSaved makes a volume of place that has no digest and lives by its name.
// Unless was is empty, the name must still be that of the volume was.
func (s *Store) installSaved(ctx context.Context, place, name, was, from string) (Volume, error) {
	v := Volume{ID: saved + randomID(), From: from}
	root, err := openDir(filepath.Join(place, treeDir))
	if err != nil {
		return Volume{}, err
	}
	f, err := look(ctx, root)
	closeFD(root)
	if err != nil {
		return Volume{}, err
	}
	v.Size, v.Files = f.size, f.files
	// Held over both steps: without a name it would be swept away.
	unlock, err := s.holdNames(ctx)
	if err != nil {
		return Volume{}, err
	}
	err = s.stillNamed(name, was)
	if err == nil {
		err = s.install(place, v)
	}
	if err == nil {
		err = s.setName(name, v.ID)
	}
	unlock()
	if err != nil {
		return Volume{}, fmt.Errorf("save %s: %w", name, err)
	}
	if err := s.sweep(ctx); err != nil {
		return Volume{}, err
	}
	return s.Find(v.ID)
}

func (s *Store) stillNamed(name, id string) error {
	names, err := s.names()
	if err == nil && id != "" && names[name] != id {
		err = errors.New("somebody else changed the volume meanwhile; try again")
	}
	return err
}
