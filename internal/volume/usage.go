package volume

import (
	"context"
	"fmt"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Usage is what a volume takes on disk, in bytes.
type Usage struct {
	Stored int64 `json:"stored"` // blocks of all its files
	Shared int64 `json:"shared"` // of these, what other volumes or copies hold as well; removing the volume does not free it
}

// Inspect gives a volume and what it takes. It reads the block maps of all
// files; what was written a moment ago counts when it is on disk.
func (s *Store) Inspect(ctx context.Context, ref string) (Volume, Usage, error) {
	v, err := s.Find(ref)
	if err != nil {
		return Volume{}, Usage{}, err
	}
	unlock, err := s.hold(v.ID)
	if err != nil {
		return Volume{}, Usage{}, err
	}
	defer unlock()
	root, err := openDir(filepath.Join(s.volume(v.ID), treeDir))
	if err != nil {
		return Volume{}, Usage{}, err
	}
	defer closeFD(root)
	var u Usage
	links := map[inodeKey]bool{}
	err = walker{visit: func(e *entry) error {
		key := inodeKey{e.st.Dev, e.st.Ino}
		if e.kind() != unix.S_IFREG || links[key] {
			return nil
		}
		links[key] = true
		return u.add(e)
	}}.walk(ctx, root)
	if err != nil {
		return Volume{}, Usage{}, fmt.Errorf("inspect volume %s: %w", ref, err)
	}
	return v, u, nil
}

// fiemap is struct fiemap of linux/fiemap.h with room for extents.
type fiemap struct {
	start, length          uint64
	flags, mapped, extents uint32
	_                      uint32
	list                   [256]struct {
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
}

const (
	fsIocFiemap      = 0xc020660b // FS_IOC_FIEMAP
	fiemapExtentLast = 0x1
	fiemapShared     = 0x2000
)

// add counts the extents of a file. A file system that has no map of them
// counts as not shared.
func (u *Usage) add(e *entry) error {
	f, err := e.open()
	if err != nil {
		return err
	}
	defer closeFile(f)
	for at := uint64(0); ; {
		m := fiemap{start: at, length: ^uint64(0) - at}
		m.extents = uint32(len(m.list))
		if err := ioctl(int(f.Fd()), fsIocFiemap, unsafe.Pointer(&m)); err != nil {
			u.Stored += e.st.Blocks * 512
			return nil
		}
		for _, x := range m.list[:m.mapped] {
			u.Stored += int64(x.length)
			if x.flags&fiemapShared != 0 {
				u.Shared += int64(x.length)
			}
			at = x.logical + x.length
			if x.flags&fiemapExtentLast != 0 {
				return nil
			}
		}
		if m.mapped == 0 {
			return nil
		}
	}
}
