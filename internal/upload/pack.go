// Package upload carries the files of a run from a person's machine to a server:
// packed, kept there on the disk until the run is over, and written out again.
//
// It refuses to follow a symbolic link, to pack what lies outside the directory,
// and to write outside one: links travel as links. Owners do not travel, nor do
// sockets and devices.
package upload

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/moby/patternmatcher"
)

// Part is a file or directory that a run reads.
type Part struct {
	Path   string   // slash-separated, relative to the tree
	Ignore []string // patterns of a .dockerignore: what of a directory it does not read
}

// Tree is what is to be packed of a directory.
type Tree struct {
	Bytes   int64           // as they count against a limit
	Tracked map[string]bool // files that git tracks: whether they may be run; nil: their own modes say it
	root    *os.Root
	entries map[string]fs.FileInfo
}

// Open finds the files of the parts in a directory. A part that is not there is
// left out: whoever reads it says so. The caller closes the tree.
func Open(ctx context.Context, dir string, parts []Part) (*Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	t := &Tree{root: root, entries: map[string]fs.FileInfo{}}
	for _, p := range parts {
		if err := t.add(ctx, p); err != nil {
			return nil, errors.Join(fmt.Errorf("pack %s: %w", p.Path, err), root.Close())
		}
	}
	for _, info := range t.entries {
		t.Bytes += costs(info.Size())
	}
	return t, nil
}

// costs is what an entry counts: its content and its header, so that neither
// many empty files nor a few large ones get past a limit.
func costs(size int64) int64 { return size + 512 }

// Names are those of all that is packed, parents first.
func (t *Tree) Names() []string { return slices.SortedFunc(maps.Keys(t.entries), parentsFirst) }

// Close lets go of the directory.
func (t *Tree) Close() error { return t.root.Close() }

func (t *Tree) add(ctx context.Context, p Part) error {
	at, err := t.follow(path.Clean(p.Path), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ignore, err := patternmatcher.New(p.Ignore)
	if err != nil {
		return fmt.Errorf("its .dockerignore: %w", err)
	}
	return fs.WalkDir(t.root.FS(), at, func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if name != at && len(p.Ignore) > 0 {
			rel := strings.TrimPrefix(strings.TrimPrefix(name, at), "/")
			if at == "." {
				rel = name
			}
			ignored, err := ignore.MatchesOrParentMatches(filepath.FromSlash(rel))
			if err != nil {
				return err
			}
			switch {
			case ignored && d.IsDir() && !ignore.Exclusions():
				return fs.SkipDir
			case ignored: // of a directory something may be read all the same
				return nil
			}
		}
		return t.keep(name, at)
	})
}

// keep notes what is packed, with the directories that lead to it from a part.
func (t *Tree) keep(name, part string) error {
	info, err := t.root.Lstat(filepath.FromSlash(name))
	if err != nil || !packable(info.Mode()) {
		return err
	}
	t.entries[name] = info
	if above := path.Dir(name); name != part && t.entries[above] == nil {
		return t.keep(above, part)
	}
	return nil
}

func packable(m fs.FileMode) bool { return m.IsRegular() || m.IsDir() || m&fs.ModeSymlink != 0 }

// maxLinks is Linux's own bound, path_resolution(7).
const maxLinks = 40

// follow packs the symbolic links on the way to a path, and gives where they lead.
func (t *Tree) follow(name string, links int) (string, error) {
	if !fs.ValidPath(name) {
		return "", fmt.Errorf("%q leads out of the directory; keep it inside", name)
	}
	parts := strings.Split(name, "/")
	for i := range parts {
		at := path.Join(parts[:i+1]...)
		info, err := t.root.Lstat(filepath.FromSlash(at))
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if links == maxLinks {
			return "", fmt.Errorf("%q: too many symbolic links", name)
		}
		t.entries[at] = info
		to, err := t.root.Readlink(filepath.FromSlash(at))
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(to) {
			return "", fmt.Errorf("%q leads to %s, out of the directory; keep it inside", at, to)
		}
		rest := append([]string{path.Dir(at), filepath.ToSlash(to)}, parts[i+1:]...)
		return t.follow(path.Join(rest...), links+1)
	}
	return name, nil
}

// Pack writes the tree. A file that changes meanwhile is an error.
func (t *Tree) Pack(ctx context.Context, to io.Writer) error {
	z, err := zstd.NewWriter(to)
	if err != nil {
		return err
	}
	w := tar.NewWriter(z)
	for _, name := range t.Names() {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := t.pack(w, name, t.entries[name]); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
	}
	return errors.Join(w.Close(), z.Close())
}

func parentsFirst(a, b string) int {
	return cmp.Or(cmp.Compare(strings.Count(a, "/"), strings.Count(b, "/")), cmp.Compare(a, b))
}

func (t *Tree) pack(w *tar.Writer, name string, info fs.FileInfo) error {
	h := &tar.Header{Name: name, Mode: t.modeOf(name, info), ModTime: info.ModTime(), Format: tar.FormatPAX}
	switch {
	case info.IsDir():
		h.Typeflag = tar.TypeDir
	case info.Mode().IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
	default:
		to, err := t.root.Readlink(filepath.FromSlash(name))
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, filepath.ToSlash(to)
	}
	if err := w.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := t.root.Open(filepath.FromSlash(name))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(w, f, h.Size); err != nil {
		return fmt.Errorf("%w; it has changed meanwhile", err)
	}
	return nil
}

// modeOf gives the bits of chmod(2). Windows has none: there a file is what git has it
// as, and one that git does not track may be run, as Docker has it.
func (t *Tree) modeOf(name string, info fs.FileInfo) int64 {
	m := info.Mode()
	if executable, ok := t.Tracked[name]; ok && !executable {
		return 0o644
	} else if ok || runtime.GOOS == "windows" {
		return 0o755
	}
	bits := int64(m.Perm())
	for bit, flag := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&flag != 0 {
			bits |= bit
		}
	}
	return bits
}
