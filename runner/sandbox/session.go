package sandbox

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// session is one life of the helper: a directory whose lock says that its owner
// lives. The kernel drops the lock however the owner dies, a pid or a start time
// would have to be compared and guessed at.
// sessionLen is the length of a session's name, in hex digits.
const sessionLen = 12

type session struct {
	name string
	dir  string
	lock *os.File
}

// newSession makes and locks a directory under root.
func newSession(root string) (*session, error) {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("make the runner's directory: %w", err)
	}
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	s := &session{name: hex.EncodeToString(b[:])}
	s.dir = filepath.Join(root, s.name)
	// Made under a name that is never reaped, locked, then renamed: there is no
	// moment at which a reaper could take it for abandoned.
	fresh := filepath.Join(root, newPrefix+s.name)
	if err := os.Mkdir(fresh, 0o711); err != nil {
		return nil, fmt.Errorf("make a session directory: %w", err)
	}
	var err error
	if s.lock, err = lockDir(fresh); err != nil {
		return nil, err
	}
	if err := os.Rename(fresh, s.dir); err != nil {
		return nil, fmt.Errorf("make a session directory: %w", err)
	}
	return s, nil
}

// newPrefix marks a session directory that is not locked yet.
const newPrefix = "new-"

// lockDir takes the lock of a directory, or says that someone has it.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		drop(f)
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// close removes the directory, then lets the lock go.
func (s *session) close() error {
	err := removeTree(s.dir)
	return joinClose(err, s.lock)
}

func joinClose(err error, f *os.File) error {
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
