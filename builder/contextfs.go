package builder

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"slipway/builder/dockerfile"
)

// BuildKit keeps the last copy of a context and asks for a file again only when
// its size or time of modification differ. That misses an edit which keeps
// both, as tar, rsync, a code generator or `touch -r` leave behind, and builds
// stale content. So the context is shown with fractions of a second that stand
// for the inode and its time of change, which no edit can keep.
type stampedFS struct {
	fsutil.FS
	root string
	now  time.Time
}

// settled is how old a change must be before the kernel is sure to give the
// next one another time: its clock ticks at least a hundred times a second.
const settled = 50 * time.Millisecond

// contextFS shows the directory root, whose path has no symbolic links.
func contextFS(root string) (fsutil.FS, error) {
	inner, err := fsutil.NewFS(root)
	if err != nil {
		return nil, err
	}
	return &stampedFS{FS: inner, root: root, now: time.Now()}, nil
}

// Walk implements fsutil.FS.
func (s *stampedFS) Walk(ctx context.Context, target string, f fs.WalkDirFunc) error {
	return s.FS.Walk(ctx, target, func(path string, d fs.DirEntry, err error) error {
		if d != nil && path == dockerfile.GitDir {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d != nil {
			d = &stampedEntry{DirEntry: d, fs: s, path: path}
		}
		return f(path, d, err)
	})
}

type stampedEntry struct {
	fs.DirEntry
	fs   *stampedFS
	path string
}

// Info gives the entry with its stamp.
func (e *stampedEntry) Info() (fs.FileInfo, error) {
	fi, err := e.DirEntry.Info()
	if err != nil || !fi.Mode().IsRegular() {
		return fi, err
	}
	st, ok := fi.Sys().(*types.Stat)
	if !ok {
		return fi, nil
	}
	real, err := os.Lstat(filepath.Join(e.fs.root, e.path))
	if err != nil {
		return nil, err
	}
	if sys, ok := real.Sys().(*syscall.Stat_t); ok {
		st.ModTime = e.fs.stamp(st.ModTime, sys)
	}
	return fi, nil
}

// stamp keeps the second of mtime (in nanoseconds) and replaces the rest.
func (s *stampedFS) stamp(mtime int64, st *syscall.Stat_t) int64 {
	h := fnv.New64a()
	fields := []uint64{st.Ino, uint64(st.Ctim.Sec), uint64(st.Ctim.Nsec), uint64(mtime)}
	if changed := time.Unix(st.Ctim.Unix()); s.now.Sub(changed) < settled {
		// The next edit may yet get the same time: make this copy match nothing.
		fields = append(fields, uint64(s.now.UnixNano()))
	}
	var buf [8]byte
	for _, f := range fields {
		binary.LittleEndian.PutUint64(buf[:], f)
		_, _ = h.Write(buf[:]) // never fails
	}
	second := int64(time.Second)
	whole := mtime - ((mtime%second)+second)%second
	return whole + int64(h.Sum64()%uint64(second))
}
