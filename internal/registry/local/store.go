// Package local keeps images of this machine in a directory, in the shape of a
// registry: repositories with manifests, tags and referrers over blobs that
// they share. Several processes may use one directory at the same time.
//
// A blob or manifest of a repository is a hard link to content that was checked
// and synced before it got its name, so what is visible is whole, whenever a
// process is killed; putting an image into another repository makes links and
// copies nothing.
//
// It refuses names and digests outside the grammar of the distribution spec,
// content whose digest is another one, and manifests whose parts are not there.
// It speaks no protocol: internal/registry/endpoint does.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"slipway/internal/flock"

	"github.com/opencontainers/go-digest"
)

// What an operation was refused for. Something that is not there is
// fs.ErrNotExist instead.
var (
	ErrName       = errors.New("not a name of the distribution spec")
	ErrDigest     = errors.New("the bytes have another digest")
	ErrManifest   = errors.New("the manifest is not valid")
	ErrIncomplete = errors.New("parts of it are missing")
	ErrBusy       = errors.New("another request works on it")
	ErrInUse      = errors.New("a manifest of the repository names it; delete that first")
	ErrOffset     = errors.New("not the next byte of the upload")
)

// Directories of the store. A component of a repository's name never begins
// with "_", so what belongs to a repository can lie in its directory.
const (
	blobsDir   = "blobs"   // ALGORITHM/XX/HEX: content by digest, for finding it again
	reposDir   = "repos"   // NAME/_manifests, _blobs, _tags, _referrers
	uploadsDir = "uploads" // unfinished content
	lockFile   = "lock"    // shared while something gets its name, exclusive while something is removed

	manifestsDir = "_manifests"
	layersDir    = "_blobs"
	tagsDir      = "_tags"
	referrersDir = "_referrers"
)

// Store is the directory. Its methods may be called from many goroutines.
type Store struct {
	root *os.Root // keeps every path inside, whatever is in a name
	dir  string

	pending pending
}

// Open makes dir a store where it is none, and removes what killed writers left.
func Open(dir string) (*Store, error) {
	for _, d := range []string{blobsDir, reposDir, uploadsDir} {
		if err := os.MkdirAll(dir+"/"+d, 0o700); err != nil {
			return nil, fmt.Errorf("prepare the image store: %w; give a writable directory with --root", err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the image store: %w", err)
	}
	s := &Store{root: root, dir: dir}
	if err := s.dropAbandoned(); err != nil {
		return nil, errors.Join(fmt.Errorf("clean the image store: %w", err), root.Close())
	}
	return s, nil
}

// Close gives the directory back. Readers of blobs stay usable.
func (s *Store) Close() error { return s.root.Close() }

// Repository gives the repository of a name, which need not exist yet: the
// first blob or manifest makes it.
func (s *Store) Repository(name string) (*Repository, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	return &Repository{store: s, name: name}, nil
}

// Repositories lists the names of all that hold a manifest, sorted.
func (s *Store) Repositories(ctx context.Context) ([]string, error) {
	var out []string
	err := s.eachRepository(ctx, func(r *Repository) error {
		names, err := s.list(r.path(manifestsDir))
		if len(names) > 0 {
			out = append(out, r.name)
		}
		return err
	})
	slices.Sort(out)
	return out, err
}

// eachRepository visits all directories that belong to a repository.
func (s *Store) eachRepository(ctx context.Context, visit func(*Repository) error) error {
	return fs.WalkDir(s.root.FS(), reposDir, func(p string, d fs.DirEntry, err error) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, fs.ErrNotExist) { // removed while we walk
			return nil
		}
		if err != nil || !d.IsDir() || p == reposDir {
			return err
		}
		if strings.HasPrefix(d.Name(), "_") {
			return fs.SkipDir
		}
		return visit(&Repository{store: s, name: strings.TrimPrefix(p, reposDir+"/")})
	})
}

// list gives the names in a directory, sorted; none where there is no directory.
func (s *Store) list(dir string) ([]string, error) {
	f, err := s.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, errors.Join(err, f.Close())
}

// content is where a blob lies by its digest. d has been checked.
func content(d digest.Digest) string {
	return path.Join(blobsDir, d.Algorithm().String(), d.Encoded()[:2], d.Encoded())
}

// entry is the name of a digest in a directory of a repository.
func entry(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

// digestOf undoes entry.
func digestOf(name string) (digest.Digest, bool) {
	algorithm, hex, ok := strings.Cut(name, "-")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	return d, ok && d.Validate() == nil
}

// locked runs f while no other process removes anything (shared), or while no
// other process changes anything. The kernel frees the lock of a killed process.
func (s *Store) locked(ctx context.Context, how flock.How, f func() error) error {
	l, err := s.root.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return explain(err)
	}
	defer l.Close() // frees the lock
	if err := flock.Wait(ctx, l, how, nil); err != nil {
		return err
	}
	return f()
}

// explain adds the next step to errors of the file system.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("the disk of the image store is full: %w; free space (`slipway gc` may help) and try again", err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; give slipway a directory it may write to with --root", err)
	}
	return err
}
