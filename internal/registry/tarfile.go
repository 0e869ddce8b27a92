package registry

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// files opens a file of a layout or archive by its slash-separated name and
// says its size. Names never lead out of it.
type files func(name string) (io.ReadCloser, int64, error)

// maxEntries bounds the table of contents kept in memory. An image archive has
// a few hundred entries; a root file system is never indexed.
const maxEntries = 100_000

// maxLinks is how many links in a row are followed inside an archive.
const maxLinks = 8

type tarEntry struct {
	offset, size int64
	link         string // cleaned target name; empty for a file
}

// indexTar lists an uncompressed tar without reading its files, so that they
// can be opened in any order. Later entries replace earlier ones, as unpacking would.
func indexTar(ctx context.Context, f *os.File) (map[string]tarEntry, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	entries := map[string]tarEntry{}
	for tr := tar.NewReader(f); ; {
		if err := stopped(ctx)(); err != nil {
			return nil, err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		if len(entries) >= maxEntries {
			return nil, fmt.Errorf("more than %d entries; an image archive has a few hundred", maxEntries)
		}
		offset, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		name := cleanName(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			if isSparse(h) {
				return nil, fmt.Errorf("%s is stored sparse; pack the archive again without --sparse", name)
			}
			entries[name] = tarEntry{offset: offset, size: h.Size}
		case tar.TypeSymlink: // `docker save` before 25 links equal layers
			entries[name] = tarEntry{link: cleanName(path.Join(path.Dir(name), h.Linkname))}
		case tar.TypeLink:
			entries[name] = tarEntry{link: cleanName(h.Linkname)}
		}
	}
}

// isSparse reports whether the file's bytes are not stored in one piece.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// cleanName makes "./a", "/a" and "a/" the same name. What would climb out of
// the archive becomes a name inside it that nothing else refers to.
func cleanName(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// tarFiles opens files of an indexed tar.
func tarFiles(f io.ReaderAt, entries map[string]tarEntry) files {
	return func(name string) (io.ReadCloser, int64, error) {
		at := cleanName(name)
		for range maxLinks {
			e, ok := entries[at]
			if !ok {
				return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
			}
			if e.link == "" {
				return io.NopCloser(io.NewSectionReader(f, e.offset, e.size)), e.size, nil
			}
			at = e.link
		}
		return nil, 0, fmt.Errorf("%s: more than %d links in a row", name, maxLinks)
	}
}

// dirFiles opens files under root. os.Root keeps symlinks and ".." inside.
func dirFiles(root *os.Root) files {
	return func(name string) (io.ReadCloser, int64, error) {
		info, err := root.Stat(name) // before Open: opening a fifo would wait for its writer
		if err != nil {
			return nil, 0, err
		}
		if !info.Mode().IsRegular() {
			return nil, 0, fmt.Errorf("%s is not a regular file", name)
		}
		f, err := root.Open(name)
		if err != nil {
			return nil, 0, err
		}
		return f, info.Size(), nil
	}
}

// readSmall reads a whole document of an archive.
func readSmall(open files, name string) ([]byte, error) {
	r, size, err := open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxDocument {
		return nil, fmt.Errorf("%s has %d bytes; slipway reads such documents up to %d", name, size, maxDocument)
	}
	b, err := io.ReadAll(r)
	if err == nil && int64(len(b)) < size {
		err = fmt.Errorf("%s: %w", name, io.ErrUnexpectedEOF)
	}
	return b, err
}
