package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// listingFile beside a volume's tree says which blobs it is made of. It is there
// when the volume travelled.
const listingFile = "listing.zst"

// Fetch opens a blob or manifest by its digest. Artifact checks what it reads.
type Fetch func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)

// Artifact is a volume that Export made, by the digest of its manifest. Blobs
// that another volume of the store holds are not fetched.
func Artifact(manifest ocispec.Descriptor, fetch Fetch) Source {
	return Source{func(ctx context.Context, s *Store) (string, error) {
		return s.once(ctx, keyOf("artifact", manifest.Digest.String()), func() (string, error) {
			return s.importArtifact(ctx, manifest, fetch)
		})
	}}
}

func (s *Store) importArtifact(ctx context.Context, d ocispec.Descriptor, fetch Fetch) (string, error) {
	raw, err := fetchAll(ctx, fetch, d, maxManifest)
	if err != nil {
		return "", err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return "", badSource("manifest %s: %w", d.Digest, err)
	}
	if m.ArtifactType != ArtifactType || len(m.Layers) == 0 || m.Layers[0].MediaType != listingType {
		return "", badSource("%s is no volume (%s); name what `slipway volumes push` printed", d.Digest, m.ArtifactType)
	}
	packed, err := fetchAll(ctx, fetch, m.Layers[0], maxListing)
	if err != nil {
		return "", err
	}
	l, err := unpackListing(packed)
	if err != nil {
		return "", badSource("volume %s: %w", d.Digest, err)
	}
	if err := l.listedIn(m.Layers[1:]); err != nil {
		return "", badSource("volume %s: %w", d.Digest, err)
	}
	if id := l.Tree.Encoded(); s.has(id) {
		return id, nil
	}
	if err := s.makeRoom(ctx, l.stored()); err != nil {
		return "", err
	}
	place := s.temporary("import")
	if err := os.Mkdir(place, 0o700); err != nil {
		return "", err
	}
	defer s.drop(place)
	return s.assemble(ctx, place, "artifact "+d.Digest.String(), l, packed, fetch)
}

func (s *Store) has(id string) bool {
	_, err := os.Stat(filepath.Join(s.volume(id), volumeFile))
	return err == nil
}

func (s *Store) assemble(ctx context.Context, place, from string, l *listing, packed []byte, fetch Fetch) (string, error) {
	dir := filepath.Join(place, treeDir)
	if err := s.trees.create(dir); err != nil {
		return "", err
	}
	root, err := openDir(dir)
	if err != nil {
		return "", err
	}
	defer closeFD(root)
	if err := l.skeleton(root); err != nil {
		return "", err
	}
	if err := s.fill(ctx, root, l, fetch); err != nil {
		return "", err
	}
	if err := l.finish(root); err != nil {
		return "", err
	}
	t, err := hashTree(ctx, root)
	if err != nil {
		return "", err
	}
	if t.digest != l.Tree {
		return "", fmt.Errorf("what was fetched makes the tree %s, but the volume says %s; push it again", t.digest, l.Tree)
	}
	if err := os.WriteFile(filepath.Join(place, listingFile), packed, 0o600); err != nil {
		return "", err
	}
	v := Volume{ID: t.digest.Encoded(), Digest: t.digest, From: from, Size: t.size, Files: t.files}
	return v.ID, s.install(place, v)
}

// skeleton makes every entry, files empty but of their size.
func (l *listing) skeleton(root int) error {
	for _, e := range l.Entries[1:] {
		dir, err := openIn(root, path.Dir(string(e.Path)), unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = e.make(root, int(dir.Fd()), path.Base(string(e.Path)))
		closeFile(dir)
		if err != nil {
			return named("make", string(e.Path), err)
		}
	}
	return nil
}

func (e *listed) make(root, dir int, name string) error {
	switch e.Kind {
	case "dir":
		return unix.Mkdirat(dir, name, 0o700)
	case "symlink":
		return unix.Symlinkat(string(e.Target), dir, name)
	case "fifo":
		return unix.Mkfifoat(dir, name, 0o600)
	case "link":
		return unix.Linkat(root, string(e.Target), dir, name, 0)
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(unix.Ftruncate(fd, e.Size), unix.Close(fd))
}

// finish gives every entry its metadata, what a directory holds before it.
func (l *listing) finish(root int) error {
	for _, e := range slices.Backward(l.Entries) {
		if e.Kind == "link" {
			continue // its first path has it
		}
		at, name := path.Dir(string(e.Path)), path.Base(string(e.Path))
		dir, err := openIn(root, at, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = set(int(dir.Fd()), name, string(e.Path), metadata{
			symlink: e.Kind == "symlink", mode: e.Mode, uid: e.UID, gid: e.GID, mtime: unix.NsecToTimespec(e.MTime), xattrs: e.Xattrs,
		})
		closeFile(dir)
		if err != nil {
			return err
		}
	}
	return nil
}

// fill writes the content of all files, blob by blob.
func (s *Store) fill(ctx context.Context, root int, l *listing, fetch Fetch) error {
	decoder, err := newDecoder(maxBlob)
	if err != nil {
		return err
	}
	defer decoder.Close()
	near, err := s.nearby(l)
	if err != nil {
		return err
	}
	defer near.close()
	pieces := l.pieces()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(4, runtime.GOMAXPROCS(0)))
	for i, b := range l.Blobs {
		group.Go(func() error {
			left, raw := near.take(ctx, b, root, l, pieces[i])
			if len(left) == 0 {
				return nil
			}
			if raw == nil {
				var err error
				if raw, err = fetchBlob(ctx, fetch, decoder, b); err != nil {
					return err
				}
			}
			return write(root, l, left, raw)
		})
	}
	return group.Wait()
}

func fetchBlob(ctx context.Context, fetch Fetch, decoder *zstd.Decoder, b blob) ([]byte, error) {
	packed, err := fetchAll(ctx, fetch, ocispec.Descriptor{MediaType: dataType, Digest: b.Digest, Size: b.Size}, 2*maxBlob)
	if err != nil {
		return nil, err
	}
	raw, err := decoder.DecodeAll(packed, make([]byte, 0, b.Raw))
	if err != nil {
		return nil, fmt.Errorf("unpack blob %s: %w", b.Digest, err)
	}
	if int64(len(raw)) != b.Raw {
		return nil, fmt.Errorf("blob %s unpacks to %d bytes, the listing says %d", b.Digest, len(raw), b.Raw)
	}
	return raw, nil
}

func write(root int, l *listing, pieces []piece, raw []byte) error {
	for _, p := range pieces {
		f, err := openIn(root, string(l.Entries[p.entry].Path), unix.O_WRONLY)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(raw[p.At:p.At+p.Length], p.Offset)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// fetchAll reads a blob and checks that it is the one.
func fetchAll(ctx context.Context, fetch Fetch, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("blob %s has %d bytes; a volume's has at most %d", d.Digest, d.Size, limit)
	}
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("blob %q: %w", d.Digest, err)
	}
	r, err := fetch(ctx, d)
	if errors.Is(err, os.ErrNotExist) {
		return nil, badSource("fetch %s: %w", d.Digest, err)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", d.Digest, err)
	}
	defer r.Close()
	var buf bytes.Buffer
	if _, err := io.Copy(&buf, io.LimitReader(r, limit+1)); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", d.Digest, err)
	}
	if d.Digest.Algorithm().FromBytes(buf.Bytes()) != d.Digest {
		return nil, fmt.Errorf("fetch %s: got %d bytes of something else; try again", d.Digest, buf.Len())
	}
	return buf.Bytes(), nil
}

func unpackListing(packed []byte) (*listing, error) {
	decoder, err := newDecoder(maxListing)
	if err != nil {
		return nil, err
	}
	defer decoder.Close()
	raw, err := decoder.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack the listing: %w", err)
	}
	var l listing
	if err := json.Unmarshal(raw, &l); err != nil {
		return nil, fmt.Errorf("read the listing: %w", err)
	}
	return &l, l.check()
}

// listedIn: a registry keeps only blobs that the manifest names.
func (l *listing) listedIn(layers []ocispec.Descriptor) error {
	sizes := map[string]int64{}
	for _, d := range layers {
		sizes[d.Digest.String()] = d.Size
	}
	for _, b := range l.Blobs {
		if size, ok := sizes[b.Digest.String()]; !ok || size != b.Size {
			return fmt.Errorf("blob %s of the listing is not in the manifest", b.Digest)
		}
	}
	return nil
}
