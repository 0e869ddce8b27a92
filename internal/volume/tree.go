package volume

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// tree says what a directory tree holds.
type tree struct {
	digest digest.Digest
	size   int64 // bytes of all files, each hard-linked one once
	files  int   // entries of every kind, the root not counted
}

// hashTree is the identity of a tree: names, kinds, modes, owners, extended
// attributes, symlink targets, hard links and contents. Times are no part of it:
// a fresh checkout is the same seed.
func hashTree(ctx context.Context, root int) (tree, error) {
	h := &treeHash{sum: sha256.New(), links: map[inodeKey]string{}, buf: make([]byte, 256<<10)}
	h.bytes([]byte("slipway volume tree 1"))
	if err := (walker{visit: func(e *entry) error { return h.visit(ctx, e) }}).walk(ctx, root); err != nil {
		return tree{}, err
	}
	return tree{digest.NewDigest(digest.SHA256, h.sum), h.size, h.files}, nil
}

type inodeKey struct{ dev, ino uint64 }

type treeHash struct {
	sum   hash.Hash
	links map[inodeKey]string // first path of each file with several
	buf   []byte
	size  int64
	files int
}

func (h *treeHash) number(n uint64) {
	h.sum.Write(binary.BigEndian.AppendUint64(nil, n))
}

func (h *treeHash) bytes(b []byte) {
	h.number(uint64(len(b)))
	h.sum.Write(b)
}

func (h *treeHash) visit(ctx context.Context, e *entry) error {
	if e.kind() == unix.S_IFSOCK {
		return nil // in a saved copy of a database that ran; no content, and not in any copy
	}
	if err := refuse(e); err != nil {
		return err
	}
	if e.path != "." {
		h.files++
	}
	h.bytes([]byte(e.path))
	if e.kind() == unix.S_IFREG && e.st.Nlink > 1 {
		key := inodeKey{e.st.Dev, e.st.Ino}
		if first, seen := h.links[key]; seen {
			h.sum.Write([]byte{'l'})
			h.bytes([]byte(first))
			return nil
		}
		h.links[key] = e.path
	}
	h.sum.Write([]byte{kindLetter(e.kind())})
	h.number(uint64(e.st.Mode & 0o7777))
	h.number(uint64(e.st.Uid))
	h.number(uint64(e.st.Gid))
	attrs, err := xattrs(e)
	if err != nil {
		return err
	}
	h.number(uint64(len(attrs)))
	for _, a := range attrs {
		h.bytes([]byte(a.Name))
		h.bytes(a.Value)
	}
	switch e.kind() {
	case unix.S_IFREG:
		return h.content(ctx, e)
	case unix.S_IFLNK:
		target, err := e.readlink()
		h.bytes([]byte(target))
		return err
	}
	return nil
}

// content adds the digest and not the bytes, so that a length cannot be mistaken
// for content when a file changes while it is read.
func (h *treeHash) content(ctx context.Context, e *entry) error {
	f, err := e.open()
	if err != nil {
		return err
	}
	defer closeFile(f)
	sum := sha256.New()
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := f.Read(h.buf)
		sum.Write(h.buf[:n])
		h.size += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	h.sum.Write(sum.Sum(nil))
	return nil
}

func kindLetter(kind uint32) byte {
	switch kind {
	case unix.S_IFDIR:
		return 'd'
	case unix.S_IFREG:
		return 'f'
	case unix.S_IFLNK:
		return 's'
	case unix.S_IFIFO:
		return 'p'
	}
	return '?'
}

// refuse names what no volume holds: a device reaches the host, and a socket is
// only the address of a process that is not there.
func refuse(e *entry) error {
	switch e.kind() {
	case unix.S_IFSOCK:
		return badSource("%s is a socket: stop the program that made it, remove it, and try again", e.path)
	case unix.S_IFCHR, unix.S_IFBLK:
		return badSource("%s is a device; a volume holds files, directories, symlinks and FIFOs: remove it", e.path)
	}
	return nil
}

// xattr is one extended attribute.
type xattr struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

// xattrs are those of an entry, by name, less those that belong to the machine
// or the file system and not to the data.
func xattrs(e *entry) ([]xattr, error) {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", e.dir, e.name)
	buf := make([]byte, 1024)
	n, err := retryRange(&buf, func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: e.path, Err: err}
	}
	var all []xattr
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name == "" || foreignXattr(name) {
			continue
		}
		value := make([]byte, 256)
		n, err := retryRange(&value, func(b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
		if err != nil {
			return nil, &os.PathError{Op: "getxattr " + name, Path: e.path, Err: err}
		}
		all = append(all, xattr{name, value[:n]})
	}
	slices.SortFunc(all, func(a, b xattr) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// foreignXattr: labels of the host's policy, and notes of overlayfs and btrfs to themselves.
func foreignXattr(name string) bool {
	switch name {
	case "security.selinux", "security.ima", "security.evm", "security.SMACK64":
		return true
	}
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "btrfs.")
}

// retryRange calls f with a larger buffer until what it gives fits.
func retryRange(buf *[]byte, f func([]byte) (int, error)) (int, error) {
	for {
		n, err := f(*buf)
		if errors.Is(err, unix.ERANGE) && len(*buf) < 1<<20 {
			*buf = make([]byte, 4*len(*buf))
			continue
		}
		return n, err
	}
}
