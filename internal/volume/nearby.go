package volume

import (
	"context"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// nearby are the blobs that other volumes of the store hold: the version before,
// mostly. What cannot be read there is fetched; the digest of the whole tree is
// checked in the end whatever came from where.
type nearby struct {
	blobs   map[digest.Digest]localBlob
	volumes []*localVolume
}

type localVolume struct {
	root    int
	listing *listing
	unlock  func()
}

type localBlob struct {
	in     *localVolume
	pieces []piece
}

// maxNearby volumes are looked at, those used last.
const maxNearby = 8

func (s *Store) nearby(l *listing) (*nearby, error) {
	wanted := map[digest.Digest]bool{}
	for _, b := range l.Blobs {
		wanted[b.Digest] = true
	}
	n := &nearby{blobs: map[digest.Digest]localBlob{}}
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if len(n.volumes) == maxNearby {
			break
		}
		packed, err := os.ReadFile(filepath.Join(s.volume(v.ID), listingFile))
		if err != nil {
			continue // it never travelled
		}
		have, err := unpackListing(packed)
		if err != nil {
			s.log.Debug().Err(err).Str("volume", v.ID).Msg("its listing is no help")
			continue
		}
		n.add(s, v.ID, have, wanted)
	}
	return n, nil
}

// add takes the blobs of a volume that are wanted.
func (n *nearby) add(s *Store, id string, have *listing, wanted map[digest.Digest]bool) {
	unlock, err := s.hold(id)
	if err != nil {
		return // removed meanwhile
	}
	root, err := openDir(filepath.Join(s.volume(id), treeDir))
	if err != nil {
		unlock()
		return
	}
	v := &localVolume{root, have, unlock}
	n.volumes = append(n.volumes, v)
	pieces := have.pieces()
	for i, b := range have.Blobs {
		if _, there := n.blobs[b.Digest]; wanted[b.Digest] && !there {
			n.blobs[b.Digest] = localBlob{v, pieces[i]}
		}
	}
}

func (n *nearby) close() {
	for _, v := range n.volumes {
		closeFD(v.root)
		v.unlock()
	}
}

// take gives a blob's bytes and what is still to be written of it: nothing where
// the file system shares the blocks with the volume that has them.
func (n *nearby) take(ctx context.Context, b blob, root int, l *listing, pieces []piece) (left []piece, raw []byte) {
	local, ok := n.blobs[b.Digest]
	if !ok {
		return pieces, nil
	}
	for _, p := range pieces {
		if !local.share(root, string(l.Entries[p.entry].Path), p) {
			left = append(left, p)
		}
	}
	if len(left) == 0 {
		return nil, nil
	}
	raw, err := readBlob(ctx, local.in.root, local.in.listing, local.pieces)
	if err != nil || int64(len(raw)) != b.Raw {
		return left, nil
	}
	return left, raw
}

// share makes a piece of a file share its blocks (FICLONERANGE): pieces of large
// files, which begin on a block's boundary.
func (b localBlob) share(root int, path string, p piece) bool {
	if len(b.pieces) == 0 || p.At != 0 || p.Offset%chunkSize != 0 {
		return false
	}
	source := b.pieces[0]
	if source.At != 0 || source.Length != p.Length || source.Offset%chunkSize != 0 {
		return false
	}
	from, err := openIn(b.in.root, string(b.in.listing.Entries[source.entry].Path), unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer closeFile(from)
	to, err := openIn(root, path, unix.O_WRONLY)
	if err != nil {
		return false
	}
	err = unix.IoctlFileCloneRange(int(to.Fd()), &unix.FileCloneRange{
		Src_fd: int64(from.Fd()), Src_offset: uint64(source.Offset), Src_length: uint64(p.Length), Dest_offset: uint64(p.Offset),
	})
	return to.Close() == nil && err == nil
}
