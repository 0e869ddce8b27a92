package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The databases of the store reach the disk when it is closed. If the machine
// itself is lost while it is open, they may be torn, and nothing in them is to
// be trusted. What people cannot do without is in files that are synced as they
// are written: the blobs, and in the names directory one file per named image.
// After such a loss the images are imported again from those; the build cache
// begins empty.

func namesDir(root string) string  { return filepath.Join(root, "names") }
func lostDir(root string) string   { return filepath.Join(root, "worker.lost") }
func blobDir(worker string) string { return filepath.Join(worker, "content", "blobs", "sha256") }

// bootID changes with every start of the kernel; see random(4).
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(id), err
}

// named is one file of the names directory.
type named struct {
	Name   string             `json:"name"`
	Target ocispec.Descriptor `json:"target"`
	Time   time.Time          `json:"time"`
}

func (s *imageStore) namePath(name string) string {
	return filepath.Join(s.names, digest.FromString(name).Encoded()+".json")
}

// remember writes the file of a named image unless it says the same already.
func (s *imageStore) remember(name string, target ocispec.Descriptor) error {
	path := s.namePath(name)
	if old, err := readNamed(path); err == nil && old.Target.Digest == target.Digest {
		return nil
	}
	data, err := json.Marshal(named{Name: name, Target: target, Time: time.Now()})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(s.names, "new-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}

func (s *imageStore) forget(name string) error {
	err := os.Remove(s.namePath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func readNamed(path string) (n named, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return n, err
	}
	return n, json.Unmarshal(data, &n)
}

// setAside puts a store of doubtful state out of the way of the new one. If a
// rescue was itself cut off, what it had set aside is still the whole.
func setAside(root string) error {
	lost := lostDir(root)
	var err error
	if _, serr := os.Stat(lost); serr == nil {
		err = os.RemoveAll(workerDir(root))
	} else {
		err = os.Rename(workerDir(root), lost)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, remove(filepath.Join(root, "cache.db")), remove(filepath.Join(root, "history.db")))
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// rescue imports the named images of a store that was set aside, oldest first,
// and drops the rest of it. An image whose blobs are damaged loses its name.
func (b *Builder) rescue(ctx context.Context) error {
	lost := lostDir(b.o.Root)
	if _, err := os.Stat(lost); err != nil {
		return nil
	}
	paths, err := filepath.Glob(filepath.Join(namesDir(b.o.Root), "*.json"))
	if err != nil {
		return err
	}
	var all []named
	for _, p := range paths {
		n, err := readNamed(p)
		if err != nil {
			b.o.Log.Warn().Err(err).Msg("a named image was forgotten when the machine was lost")
			continue
		}
		all = append(all, n)
	}
	slices.SortFunc(all, func(x, y named) int { return x.Time.Compare(y.Time) })
	for _, n := range all {
		if err := b.rescueImage(ctx, blobDir(lost), n); err != nil {
			shown, _, _ := shownName(n.Name)
			b.o.Log.Warn().Err(err).Str("image", shown).Msg("an image was damaged when the machine was lost; build or import it again")
			if err := b.engine.images.forget(n.Name); err != nil {
				return err
			}
		}
	}
	b.o.Log.Warn().Int("images", len(all)).Msg("the machine was lost while the build store was open: its images are back, its build cache begins empty")
	return os.RemoveAll(lost)
}

func (b *Builder) rescueImage(ctx context.Context, blobs string, n named) error {
	store, err := b.newIntake(ctx)
	if err != nil {
		return err
	}
	open := func(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return os.Open(filepath.Join(blobs, d.Digest.Encoded()))
	}
	if err := store.copy(ctx, n.Target, open); err != nil {
		return errors.Join(err, store.drop(ctx))
	}
	if err := store.name(ctx, n.Name, n.Target); err != nil {
		return fmt.Errorf("name it: %w", err)
	}
	return nil
}
