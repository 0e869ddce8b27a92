package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Export is a volume as an OCI artifact. Push every blob that the registry does
// not have, then the manifest. Nothing but the listing is kept in memory or on
// disk: Open reads data from the volume again. Close it when done; until then
// the volume cannot be removed.
type Export struct {
	Descriptor ocispec.Descriptor   // of the manifest
	Blobs      []ocispec.Descriptor // config and layers, each once

	small   map[digest.Digest][]byte // manifest, config, listing
	listing *listing
	pieces  [][]piece
	index   map[digest.Digest]int // of data
	encoder *zstd.Encoder
	root    int
	unlock  func()
}

// Export reads and compresses the whole volume once, to know its digests: a
// second or two for half a gigabyte.
func (s *Store) Export(ctx context.Context, ref string) (*Export, error) {
	v, err := s.Find(ref)
	if err != nil {
		return nil, err
	}
	unlock, err := s.hold(v.ID)
	if err != nil {
		return nil, err
	}
	root, err := openDir(filepath.Join(s.volume(v.ID), treeDir))
	if err != nil {
		unlock()
		return nil, err
	}
	x := &Export{root: root, unlock: unlock, small: map[digest.Digest][]byte{}, index: map[digest.Digest]int{}}
	if err := x.prepare(ctx, v.Digest); err != nil {
		x.Close()
		return nil, fmt.Errorf("export volume %s: %w", ref, err)
	}
	// A later import takes from here what has not changed.
	data := x.small[x.Blobs[1].Digest]
	if err := writeFile(s.temporary("listing"), filepath.Join(s.volume(v.ID), listingFile), data); err != nil {
		s.log.Debug().Err(err).Msg("the listing of an exported volume is not kept")
	}
	return x, nil
}

// Close lets the volume go.
func (x *Export) Close() {
	closeFD(x.root)
	x.unlock()
}

// Open gives the manifest or one of Blobs.
func (x *Export) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	data, ok := x.small[d.Digest]
	if !ok {
		i, ok := x.index[d.Digest]
		if !ok {
			return nil, fmt.Errorf("blob %s is none of this volume's", d.Digest)
		}
		raw, err := readBlob(ctx, x.root, x.listing, x.pieces[i])
		if err != nil {
			return nil, err
		}
		data = x.encoder.EncodeAll(raw, nil)
		if digest.FromBytes(data) != d.Digest {
			return nil, fmt.Errorf("blob %s reads differently the second time; the disk may be failing", d.Digest)
		}
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (x *Export) prepare(ctx context.Context, known digest.Digest) error {
	var err error
	if x.encoder, err = newEncoder(); err != nil {
		return err
	}
	if known == "" {
		t, err := hashTree(ctx, x.root)
		if err != nil {
			return err
		}
		known = t.digest
	}
	x.listing = &listing{Version: listingSchema, Tree: known}
	p := packer{listing: x.listing, links: map[inodeKey]text{}}
	if err := (walker{visit: p.visit}).walk(ctx, x.root); err != nil {
		return err
	}
	if len(x.listing.Blobs) > maxBlobs {
		return fmt.Errorf("it has %d blobs, and a manifest can list %d; a volume that travels holds about 64 GiB", len(x.listing.Blobs), maxBlobs)
	}
	if err := x.measure(ctx); err != nil {
		return err
	}
	return x.manifest()
}

// measure reads and compresses every blob, then drops those that are all zeros.
func (x *Export) measure(ctx context.Context) error {
	pieces := x.listing.pieces()
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range x.listing.Blobs {
		group.Go(func() error {
			raw, err := readBlob(groupCtx, x.root, x.listing, pieces[i])
			if err != nil {
				return err
			}
			b := &x.listing.Blobs[i]
			b.Raw = int64(len(raw))
			if zero(raw) {
				return nil
			}
			data := x.encoder.EncodeAll(raw, nil)
			b.Digest, b.Size = digest.FromBytes(data), int64(len(data))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	x.listing.compact()
	x.pieces = x.listing.pieces()
	for i, b := range x.listing.Blobs {
		x.index[b.Digest] = i
	}
	return nil
}

// compact drops blobs of zeros and keeps one of those that are equal.
func (l *listing) compact() {
	var kept []blob
	first := map[digest.Digest]int{}
	to := make([]int, len(l.Blobs))
	for i, b := range l.Blobs {
		at, seen := first[b.Digest]
		switch {
		case b.Digest == "":
			at = -1
		case !seen:
			at = len(kept)
			first[b.Digest] = at
			kept = append(kept, b)
		}
		to[i] = at
	}
	for i := range l.Entries {
		var parts []part
		for _, p := range l.Entries[i].Parts {
			if p.Blob = to[p.Blob]; p.Blob >= 0 {
				parts = append(parts, p)
			}
		}
		l.Entries[i].Parts = parts
	}
	l.Blobs = kept
}

func (x *Export) manifest() error {
	raw, err := json.Marshal(x.listing)
	if err != nil {
		return err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: ArtifactType,
		Config: x.keep(ocispec.MediaTypeEmptyJSON, []byte("{}")),
	}
	m.Layers = []ocispec.Descriptor{x.keep(listingType, x.encoder.EncodeAll(raw, nil))}
	for _, b := range x.listing.Blobs {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: dataType, Digest: b.Digest, Size: b.Size})
	}
	x.Blobs = append([]ocispec.Descriptor{m.Config}, m.Layers...)
	if raw, err = json.Marshal(m); err != nil {
		return err
	}
	x.Descriptor = x.keep(ocispec.MediaTypeImageManifest, raw)
	x.Descriptor.ArtifactType = ArtifactType
	return nil
}

func (x *Export) keep(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	x.small[d.Digest] = data
	return d
}

// packer lists a tree and plans its blobs; it reads no content.
type packer struct {
	listing *listing
	links   map[inodeKey]text
	pack    int   // the blob that small files go to
	filled  int64 // bytes in it; 0: none yet
}

func (p *packer) visit(e *entry) error {
	if e.kind() == unix.S_IFSOCK {
		return nil
	}
	if err := refuse(e); err != nil {
		return err
	}
	l := listed{Path: text(e.path), Mode: e.st.Mode & 0o7777, UID: e.st.Uid, GID: e.st.Gid, MTime: e.st.Mtim.Nano()}
	var err error
	switch e.kind() {
	case unix.S_IFDIR:
		l.Kind = "dir"
	case unix.S_IFIFO:
		l.Kind = "fifo"
	case unix.S_IFLNK:
		l.Kind = "symlink"
		var target string
		target, err = e.readlink()
		l.Target = text(target)
	default:
		key := inodeKey{e.st.Dev, e.st.Ino}
		if first, seen := p.links[key]; seen {
			p.listing.Entries = append(p.listing.Entries, listed{Path: l.Path, Kind: "link", Target: first})
			return nil
		}
		if e.st.Nlink > 1 {
			p.links[key] = l.Path
		}
		l.Kind, l.Size = "file", e.st.Size
		l.Parts = p.place(e)
	}
	if err == nil {
		l.Xattrs, err = xattrs(e)
	}
	p.listing.Entries = append(p.listing.Entries, l)
	return err
}

// place plans where a file's content goes.
func (p *packer) place(e *entry) (parts []part) {
	size := e.st.Size
	if size > smallFile {
		for at := int64(0); at < size; at += chunkSize {
			parts = append(parts, part{Offset: at, Length: min(chunkSize, size-at), Blob: p.newBlob()})
		}
		return parts
	}
	if size == 0 {
		return nil
	}
	if p.filled == 0 {
		p.pack = p.newBlob()
	}
	parts = []part{{Length: size, Blob: p.pack, At: p.filled}}
	p.filled += size
	h := fnv.New32a()
	h.Write([]byte(e.path))
	if p.filled >= chunkSize || p.filled >= packAtLeast && h.Sum32()%8 == 0 {
		p.filled = 0
	}
	return parts
}

func (p *packer) newBlob() int {
	p.listing.Blobs = append(p.listing.Blobs, blob{})
	return len(p.listing.Blobs) - 1
}
