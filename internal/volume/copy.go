package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// CopyOptions say what a copy is allowed.
type CopyOptions struct {
	Limit int64 // bytes that may be written in it; 0: what the store has room for. See Copy.Limited.
}

// Copy is a directory to write in, which began as a volume. It is removed by
// Release, by Close of its Store, or by the next Open when its process dies.
type Copy struct {
	Dir     string // to be mounted in sandboxes; owners are plain, mode and owner of it are the volume's root's
	Volume  string // ID of what it began as; empty: it began empty
	Limited bool   // the limit that was asked for is kept; only slipway's own btrfs can, from Linux 6.7

	store *Store
	place string // holds Dir, and nothing else
}

// Snapshot makes a copy of the volume of that name or ID. With a backend that
// copies plain files, sockets are left out.
func (s *Store) Snapshot(ctx context.Context, ref string, o CopyOptions) (*Copy, error) {
	v, err := s.Find(ref)
	if err != nil {
		return nil, err
	}
	unlock, err := s.hold(v.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s.backend == PlainCopy {
		if err := s.makeRoom(ctx, v.Size); err != nil {
			return nil, err
		}
	}
	c, err := s.newCopy(ctx, o, func(dir string) error {
		return s.trees.snapshot(ctx, filepath.Join(s.volume(v.ID), treeDir), dir)
	})
	if err != nil {
		return nil, fmt.Errorf("copy volume %s: %w", ref, err)
	}
	c.Volume = v.ID
	s.used(v.ID)
	return c, nil
}

// Empty makes a copy of nothing, owned by root with mode 0755. Where a program
// expects its image's directory, with its owner, seed from that (OverImage).
func (s *Store) Empty(ctx context.Context, o CopyOptions) (*Copy, error) {
	c, err := s.newCopy(ctx, o, func(dir string) error {
		return errors.Join(s.trees.create(dir), os.Chmod(dir, 0o755)) // whatever the umask
	})
	if err != nil {
		return nil, fmt.Errorf("make an empty volume: %w", err)
	}
	return c, nil
}

func (s *Store) newCopy(ctx context.Context, o CopyOptions, fill func(dir string) error) (*Copy, error) {
	s.keepRoom(ctx)
	place := s.temporary("copy")
	c := &Copy{Dir: filepath.Join(place, treeDir), store: s, place: place}
	err := os.Mkdir(place, 0o700)
	if err == nil {
		err = fill(c.Dir)
	}
	if err == nil && o.Limit > 0 {
		c.Limited, err = s.trees.limit(c.Dir, o.Limit)
	}
	if err != nil {
		return nil, errors.Join(err, s.trees.remove(place))
	}
	s.adopt(c)
	return c, nil
}

func (s *Store) adopt(c *Copy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copies[c] = struct{}{}
}

// disown is false when the copy was released or kept before.
func (s *Store) disown(c *Copy) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ours := s.copies[c]
	delete(s.copies, c)
	return ours
}

// Release removes the copy. What still has it mounted sees it empty. A second
// call does nothing.
func (c *Copy) Release() error {
	if !c.store.disown(c) {
		return nil
	}
	if err := c.store.trees.remove(c.place); err != nil {
		return fmt.Errorf("remove a copy of a volume: %w", err)
	}
	return nil
}

// Save makes a volume of what the copy holds now and gives it the name. With
// btrfs this is one moment, as after a power cut; with another backend nobody
// may write meanwhile. The copy stays as it is.
func (c *Copy) Save(ctx context.Context, name string) (Volume, error) {
	from := "an empty volume"
	if c.Volume != "" {
		from = "a copy of " + short(c.Volume)
	}
	return c.store.save(ctx, c.Dir, name, from)
}

func (s *Store) save(ctx context.Context, dir, name, from string) (Volume, error) {
	if err := checkName(name); err != nil {
		return Volume{}, err
	}
	place := s.temporary("save")
	if err := os.Mkdir(place, 0o700); err != nil {
		return Volume{}, err
	}
	defer s.drop(place)
	if err := s.trees.snapshot(ctx, dir, filepath.Join(place, treeDir)); err != nil {
		return Volume{}, fmt.Errorf("save %s: %w", name, err)
	}
	return s.installSaved(ctx, place, name, "", from)
}

// drop removes what was half made, or what is already installed under another path.
func (s *Store) drop(place string) {
	if err := s.trees.remove(place); err != nil {
		s.log.Warn().Err(err).Msg("a temporary directory of the volume store stays until the next start")
	}
}

func short(id string) string { return id[:min(len(id), 12)] }
