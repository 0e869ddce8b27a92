package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// What lies in Root/volumes, and in the store's own file system below data.
const (
	lockFile    = "lock"      // held while the store is opened or closed
	backendFile = "backend"   // the Backend, written when everything else stands
	imageFile   = "store.img" // of a loop backend
	dataDir     = "data"      // a mount point with a loop backend

	volumesDir  = "volumes"  // ID/{volume.json, tree}
	namesDir    = "names"    // name → ID
	knownDir    = "known"    // digest of what identifies a source → ID
	sessionsDir = "sessions" // one directory for each open Store: lock, its copies and half-made things
	keptDir     = "kept"     // copies that outlive their Store
	refsFile    = "refs.lock"

	volumeFile = "volume.json"
	treeDir    = "tree"
)

// Options say where the store is and what to make when there is none.
type Options struct {
	Root    string  // slipway's state directory, absolute; the store is Root/volumes
	Size    int64   // bytes of a new image file, sparse, which grows by itself; 0: 16 GiB
	Backend Backend // of a new store; empty: the best this machine has
	Log     zerolog.Logger
}

// Store is an open store. Its methods may be called from several goroutines, and
// several processes may have it open.
type Store struct {
	root    string // Root/volumes
	data    string
	backend Backend
	trees   trees
	log     zerolog.Logger

	users     *os.File // locked shared: somebody in this mount namespace uses the mount
	session   string   // directory of this Store
	alive     *os.File // its lock: the session of a dead process is not locked
	seq       atomic.Int64
	importing chan struct{} // holds one token: two imports at once would fight for the disk

	mu     sync.Mutex
	copies map[*Copy]struct{}
	closed bool
}

// trees makes and removes the directory trees of volumes and copies. Paths are
// below the store's own directories.
type trees interface {
	create(path string) error
	snapshot(ctx context.Context, from, to string) error // to is made, writable
	seal(path string) error                              // against writing by mistake
	remove(path string) error                            // with anything that holds trees; nothing there is no error
	limit(path string, bytes int64) (limited bool, err error)
}

// Open opens the store of a state directory, makes it when there is none, and
// removes what a process left that is dead. A loop backend is mounted in the
// mount namespace of the caller: a helper process that is to see the copies
// must be started after it. ctx covers opening only.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		root: filepath.Join(o.Root, "volumes"), log: o.Log,
		importing: make(chan struct{}, 1), copies: map[*Copy]struct{}{},
	}
	s.data = filepath.Join(s.root, dataDir)
	err := os.MkdirAll(o.Root, 0o755) // others reach what is theirs below it
	if err == nil {
		err = os.MkdirAll(s.root, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("make the volume store: %w; give a writable state directory with --root or SLIPWAY_ROOT", err)
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	dead, err := s.open(ctx, o)
	unlock()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the volume store %s: %w", s.root, err), s.Close())
	}
	for _, session := range dead {
		session.remove(s)
	}
	if err := errors.Join(s.sweep(ctx), s.clean()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// open runs under the store's lock.
func (s *Store) open(ctx context.Context, o Options) (dead []deadSession, err error) {
	if s.backend, err = s.readBackend(); err != nil {
		return nil, err
	}
	if s.backend == "" {
		s.backend, err = s.create(ctx, o)
	} else if s.backend.loop() {
		err = s.mount()
	}
	if err != nil {
		return nil, err
	}
	s.trees = s.backend.trees()
	if s.users, err = lockUsers(s.root); err != nil {
		return nil, err
	}
	for _, dir := range []string{volumesDir, namesDir, knownDir, sessionsDir, keptDir} {
		if err := os.Mkdir(filepath.Join(s.data, dir), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	if dead, err = s.deadSessions(); err != nil {
		return nil, err
	}
	session := filepath.Join(s.data, sessionsDir, randomID())
	if err := os.Mkdir(session, 0o700); err != nil {
		return dead, err
	}
	s.session = session
	s.alive, err = tryLock(filepath.Join(session, lockFile))
	return dead, err
}

// Backend is how this store makes copies.
func (s *Store) Backend() Backend { return s.backend }

// Close releases the copies of this Store, less those kept, and unmounts when
// it is the last user in this mount namespace. A second call does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	done := s.closed
	s.closed = true
	s.mu.Unlock()
	if done {
		return nil
	}
	var errs []error
	for _, c := range s.ours() {
		errs = append(errs, c.Release())
	}
	if s.session != "" {
		errs = append(errs, s.trees.remove(s.session))
	}
	if s.alive != nil {
		closeFile(s.alive)
	}
	unlock, err := s.lock(context.Background())
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer unlock()
	if s.session != "" {
		errs = append(errs, s.trim())
	}
	last := s.users != nil && unlockUsers(s.users)
	if last && s.backend.loop() {
		errs = append(errs, unmount(s.data))
	}
	return errors.Join(errs...)
}

func (s *Store) ours() []*Copy {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Copy, 0, len(s.copies))
	for c := range s.copies {
		all = append(all, c)
	}
	return all
}

// lock holds off every other process that opens or closes this store.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	f, err := waitLock(ctx, filepath.Join(s.root, lockFile), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	return func() { closeFile(f) }, nil
}

// temporary is a new path in the session: whoever finds it after this process
// is dead removes it.
func (s *Store) temporary(what string) string {
	return filepath.Join(s.session, fmt.Sprintf("%s%d", what, s.seq.Add(1)))
}

func randomID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
