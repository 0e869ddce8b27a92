package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Source is where the content of a volume comes from. Directory, InImage,
// OverImage and Artifact make one.
type Source struct {
	find func(context.Context, *Store) (id string, err error)
}

// Directory is a directory at path below root. Symlinks on the way are followed
// as far as they stay below root. As long as nothing in it changed since it was
// last seeded, which costs a look at every file, nothing is read.
func Directory(root, path string) Source {
	return Source{func(ctx context.Context, s *Store) (string, error) {
		fd, err := openWithin(root, path, true, unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, unix.ENOTDIR) {
			return "", badSource("%s is no directory; name the directory it is in", path)
		}
		if err != nil {
			return "", err
		}
		defer closeFD(fd)
		return s.fromDirectory(ctx, fd)
	}}
}

// Layers lends the directories that an image's file system consists of, topmost
// first. release, which may be nil, gives them back.
type Layers func(context.Context) (dirs []string, release func() error, err error)

// InImage is a directory of an image. Symlinks on the way to it are followed as
// the image's own: "/" is its root. Nothing in the image runs, and layers is
// asked once per image and path in the life of the store. A missing path is an
// os.ErrNotExist.
func InImage(image digest.Digest, dir string, layers Layers) Source {
	return inImage(image, dir, layers, false)
}

// OverImage is what an empty volume begins with where it is mounted over a
// directory of an image, as container engines do it: that directory's content,
// mode and owner; nothing, and root's, where the image has no such directory.
func OverImage(image digest.Digest, dir string, layers Layers) Source {
	return inImage(image, dir, layers, true)
}

func inImage(image digest.Digest, dir string, layers Layers, orEmpty bool) Source {
	dir = path.Clean("/" + dir)
	return Source{func(ctx context.Context, s *Store) (string, error) {
		kind := "image"
		if orEmpty {
			kind = "over image"
		}
		return s.once(ctx, keyOf(kind, image.String(), dir), func() (id string, err error) {
			dirs, release, err := layers(ctx)
			if err != nil {
				return "", err
			}
			if release != nil {
				defer func() { err = errors.Join(err, release()) }()
			}
			return s.fromLayers(ctx, dirs, dir, "image "+image.String()+":"+dir, orEmpty)
		})
	}}
}

// fromLayers imports a directory out of layers.
func (s *Store) fromLayers(ctx context.Context, layers []string, dir, from string, orEmpty bool) (string, error) {
	root, unmount, err := s.mountLayers(layers)
	if err != nil {
		return "", fmt.Errorf("look into the image: %w", err)
	}
	defer unmount()
	fd, err := openWithin(root, dir, false, unix.O_RDONLY|unix.O_DIRECTORY)
	if orEmpty && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) {
		return s.importEmpty(ctx)
	}
	if errors.Is(err, unix.ENOTDIR) {
		return "", badSource("%s of the image is no directory; name the directory it is in", dir)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
		return "", badSource("no such directory in the image: %w", err)
	}
	if err != nil {
		return "", fmt.Errorf("look into the image: %w", err)
	}
	defer closeFD(fd)
	facts, err := look(ctx, fd)
	if err != nil {
		return "", err
	}
	return s.importTree(ctx, fd, facts.size, from)
}

// importEmpty gives the volume that holds nothing.
func (s *Store) importEmpty(ctx context.Context) (string, error) {
	place := s.temporary("import")
	if err := os.Mkdir(place, 0o700); err != nil {
		return "", err
	}
	defer s.drop(place)
	dir := filepath.Join(place, treeDir)
	if err := errors.Join(s.trees.create(dir), os.Chmod(dir, 0o755)); err != nil { // whatever the umask
		return "", err
	}
	fd, err := openDir(dir)
	if err != nil {
		return "", err
	}
	defer closeFD(fd)
	return s.installTree(ctx, place, fd, "nothing")
}

// Seed finds the volume with the source's content, importing it when the store
// has none, and gives it the name unless that is empty. The same content is
// stored once, whatever its names and sources.
func (s *Store) Seed(ctx context.Context, name string, from Source) (Volume, error) {
	if name != "" {
		if err := checkName(name); err != nil {
			return Volume{}, err
		}
	}
	says := "seed a volume: "
	if name != "" {
		says = "seed volume " + name + ": "
	}
	id, err := from.find(ctx, s)
	if err != nil {
		return Volume{}, fmt.Errorf("%s%w", says, err)
	}
	s.used(id)
	if name != "" {
		if err := s.Tag(ctx, id, name); err != nil {
			return Volume{}, err
		}
	}
	return s.Find(id)
}

// fromDirectory knows a directory again by looking at its files, then by reading
// them, and imports what is new.
func (s *Store) fromDirectory(ctx context.Context, fd int) (string, error) {
	where, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	before, err := look(ctx, fd)
	if err != nil {
		return "", err
	}
	key := func(f facts) string { return keyOf("directory", where, f.sum) }
	return s.once(ctx, key(before), func() (string, error) {
		id, err := s.byContent(ctx, fd, before)
		if err == nil && id == "" {
			id, err = s.importTree(ctx, fd, before.size, "directory "+where)
		}
		if err != nil {
			return "", err
		}
		after, err := look(ctx, fd)
		if err != nil {
			return "", err
		}
		if after.sum != before.sum || !after.settled() {
			return id, errUnsure // right for now, but not to be remembered
		}
		return id, nil
	})
}

// byContent reads a directory when a volume looks like it, which a new checkout
// of the same commit does.
func (s *Store) byContent(ctx context.Context, fd int, f facts) (string, error) {
	all, err := s.List()
	if err != nil {
		return "", err
	}
	for _, v := range all {
		if v.Digest == "" || v.Size != f.size || v.Files != f.files {
			continue
		}
		t, err := hashTree(ctx, fd)
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(s.volume(t.digest.Encoded())); err == nil {
			return t.digest.Encoded(), nil
		}
		return "", nil
	}
	return "", nil
}

// importTree copies a tree in and gives the ID that its copy has: what is in the
// store is what the ID says, even when the source changes meanwhile.
func (s *Store) importTree(ctx context.Context, fd int, size int64, from string) (string, error) {
	if err := s.makeRoom(ctx, size); err != nil {
		return "", err
	}
	place := s.temporary("import")
	if err := os.Mkdir(place, 0o700); err != nil {
		return "", err
	}
	defer s.drop(place)
	dir := filepath.Join(place, treeDir)
	if err := s.trees.create(dir); err != nil {
		return "", err
	}
	to, err := openDir(dir)
	if err != nil {
		return "", err
	}
	defer closeFD(to)
	if err := (&copier{}).copyTree(ctx, fd, to); err != nil {
		return "", err
	}
	return s.installTree(ctx, place, to, from)
}

// installTree installs the complete tree of place, open at fd, under its digest.
func (s *Store) installTree(ctx context.Context, place string, fd int, from string) (string, error) {
	t, err := hashTree(ctx, fd)
	if err != nil {
		return "", err
	}
	v := Volume{ID: t.digest.Encoded(), Digest: t.digest, From: from, Size: t.size, Files: t.files}
	return v.ID, s.install(place, v)
}

// within is a path as it is written in messages and listings.
func within(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }
