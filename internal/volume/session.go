package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// Reap removes what a crash left of a store: its mount, its loop device, its
// copies. Without any it only looks, so that a start without volumes may call
// it. Options are those of Open.
func Reap(ctx context.Context, o Options) error {
	s := &Store{root: filepath.Join(o.Root, "volumes")}
	s.data = filepath.Join(s.root, dataDir)
	b, err := s.readBackend()
	if err != nil {
		return err
	}
	mounted, err := mountedAt(s.data)
	if err != nil {
		return err
	}
	switch {
	case b == "" && mounted != "":
		unlock, err := s.lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		return s.clearHalfMade()
	case b == "", b.loop() && mounted == "":
		return nil
	case !b.loop():
		left, err := os.ReadDir(filepath.Join(s.data, sessionsDir))
		if errors.Is(err, os.ErrNotExist) || err == nil && len(left) == 0 {
			return nil
		}
	}
	if s, err = Open(ctx, o); err != nil {
		return err
	}
	return s.Close()
}

// Made reports whether a state directory has a store of volumes.
func Made(root string) (bool, error) {
	b, err := (&Store{root: filepath.Join(root, "volumes")}).readBackend()
	return b != "", err
}

// deadSession is what a process left that did not close its Store.
type deadSession struct {
	dir  string
	lock *os.File // held, so that nobody else removes it at the same time
}

// deadSessions finds them by their locks. Called under the store's lock, under
// which sessions are made: one without a lock is not just being made.
func (s *Store) deadSessions() ([]deadSession, error) {
	entries, err := os.ReadDir(filepath.Join(s.data, sessionsDir))
	if err != nil {
		return nil, err
	}
	var dead []deadSession
	for _, e := range entries {
		dir := filepath.Join(s.data, sessionsDir, e.Name())
		lock, err := tryLock(filepath.Join(dir, lockFile))
		if err != nil {
			s.log.Warn().Err(err).Msg("a session of the volume store cannot be looked at")
			continue
		}
		if lock != nil {
			dead = append(dead, deadSession{dir, lock})
		}
	}
	return dead, nil
}

// remove frees what the session holds. A failure leaves it for the next Open.
func (d deadSession) remove(s *Store) {
	defer closeFile(d.lock)
	if err := s.trees.remove(d.dir); err != nil {
		s.log.Warn().Err(err).Str("session", d.dir).Msg("what a crash left in the volume store could not be removed")
	}
}
