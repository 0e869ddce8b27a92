package volume

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errUnsure comes with an ID that is right now, but must not be remembered.
var errUnsure = errors.New("the source was changed a moment ago")

// keyOf is what a source is remembered by.
func keyOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// once gives the ID remembered for a source, or finds it with f and remembers
// it. One import runs at a time.
func (s *Store) once(ctx context.Context, key string, f func() (string, error)) (string, error) {
	if id, ok := s.known(key); ok {
		return id, nil
	}
	select {
	case s.importing <- struct{}{}:
		defer func() { <-s.importing }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if id, ok := s.known(key); ok { // somebody else was faster
		return id, nil
	}
	id, err := f()
	if errors.Is(err, errUnsure) {
		return id, nil
	}
	if err != nil {
		return "", err
	}
	if err := writeFile(s.temporary("known"), filepath.Join(s.data, knownDir, key), []byte(id+"\n")); err != nil {
		s.log.Warn().Err(err).Msg("a volume's source will be read again next time")
	}
	return id, nil
}

func (s *Store) known(key string) (id string, ok bool) {
	data, err := os.ReadFile(filepath.Join(s.data, knownDir, key))
	if err != nil {
		return "", false
	}
	id = strings.TrimSpace(string(data))
	_, err = os.Stat(filepath.Join(s.volume(id), volumeFile))
	return id, err == nil && id != ""
}

// forget removes what is remembered of volumes that are gone.
func (s *Store) forget() error {
	dir := filepath.Join(s.data, knownDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := s.known(e.Name()); ok {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// facts are what a look at every file says, without reading one.
type facts struct {
	sum    string // of names, inodes, modes, owners, sizes, times
	newest time.Time
	size   int64 // as in tree
	files  int
}

// settled: a change that comes now gets another time than the last one had. A
// file system counts time in steps of some milliseconds.
func (f facts) settled() bool { return time.Since(f.newest) > time.Second }

// look takes the facts of the tree below root. The change time of an inode
// (st_ctim) moves with its content, mode, owner and attributes, and nobody can
// set it.
func look(ctx context.Context, root int) (facts, error) {
	var f facts
	sum := sha256.New()
	links := map[inodeKey]bool{}
	err := walker{visit: func(e *entry) error {
		if e.kind() == unix.S_IFSOCK {
			return nil
		}
		if changed := time.Unix(e.st.Ctim.Unix()); changed.After(f.newest) {
			f.newest = changed
		}
		line := binary.BigEndian.AppendUint64(nil, uint64(len(e.path)))
		line = append(line, e.path...)
		for _, n := range []uint64{
			e.st.Ino, uint64(e.st.Mode), uint64(e.st.Uid), uint64(e.st.Gid), uint64(e.st.Size), uint64(e.st.Nlink),
			uint64(e.st.Mtim.Nano()), uint64(e.st.Ctim.Nano()),
		} {
			line = binary.BigEndian.AppendUint64(line, n)
		}
		sum.Write(line)
		if e.path != "." {
			f.files++
		}
		key := inodeKey{e.st.Dev, e.st.Ino}
		if e.kind() == unix.S_IFREG && !links[key] {
			f.size += e.st.Size
			links[key] = true
		}
		return nil
	}}.walk(ctx, root)
	f.sum = hex.EncodeToString(sum.Sum(nil))
	return f, err
}
