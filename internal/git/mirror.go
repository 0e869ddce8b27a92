package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slipway/internal/flock"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// Mirror holds what was fetched of one repository: packs that are whole, and of
// each commit that was asked for where its history is cut off. There are no refs:
// where a branch is, only the remote knows. Any number of goroutines and
// processes may use it at the same time; fetches wait for each other. A crash
// leaves at most files that the next fetch removes.
type Mirror struct {
	dir    string
	limits Limits
}

// Limits bound what one fetch may bring and how long it may take. Zero fields
// mean the defaults that NewMirror documents.
type Limits struct {
	Pack     int64         // bytes that the other side sends; 4 GiB
	Objects  int           // in a pack; 10 million
	Object   int64         // bytes of one object, unpacked, which takes that much memory; 512 MiB
	Unpacked int64         // bytes of all objects of a pack, unpacked; 64 GiB
	Files    int           // files and directories of a commit; 1 million
	Tree     int64         // bytes of all files of a commit; 32 GiB
	Time     time.Duration // 30 minutes
}

// NewMirror names the mirror in dir, which the first fetch makes.
func NewMirror(dir string, limits Limits) *Mirror {
	set(&limits.Pack, 4<<30)
	set(&limits.Objects, 10_000_000)
	set(&limits.Object, 512<<20)
	set(&limits.Unpacked, 64<<30)
	set(&limits.Files, 1_000_000)
	set(&limits.Tree, 32<<30)
	set(&limits.Time, 30*time.Minute)
	return &Mirror{dir: dir, limits: limits}
}

func set[T int | int64 | time.Duration](limit *T, standard T) {
	if *limit <= 0 {
		*limit = standard
	}
}

// A NotThere says that a remote does not have what it was asked for (any more).
type NotThere struct {
	Ref, Commit string // Commit is empty: there is no such ref
	reason      string
}

func (n *NotThere) Error() string { return n.reason }

// open gives the objects for one operation: go-git's stores are for one goroutine.
func (m *Mirror) open() *filesystem.Storage {
	return filesystem.NewStorageWithOptions(osfs.New(m.dir), cache.NewObjectLRU(32*cache.MiByte),
		filesystem.Options{KeepDescriptors: true, LargeObjectThreshold: 4 << 20})
}

// Has says whether a commit and its files are here.
func (m *Mirror) Has(commit string) (bool, error) {
	_, err := m.Commit(commit)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Commit reads a commit that was fetched. The error is an fs.ErrNotExist where it was not.
func (m *Mirror) Commit(id string) (Commit, error) {
	store := m.open()
	defer func() { _ = store.Close() }() // only read from
	c, err := commitIn(store, id)
	if err != nil {
		return Commit{}, err
	}
	return describe(c), nil
}

func commitIn(store *filesystem.Storage, id string) (*object.Commit, error) {
	if !plumbing.IsHash(id) {
		return nil, fmt.Errorf("%q is no commit; give all 40 digits of its id: %w", id, fs.ErrNotExist)
	}
	c, err := object.GetCommit(store, plumbing.NewHash(id))
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return nil, fmt.Errorf("commit %s is not in the mirror; fetch it first: %w", id, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("read commit %s: %w", id, err)
	}
	return c, nil
}

// lock waits until no other fetch uses the mirror. The kernel frees it however
// the process ends.
func (m *Mirror) lock(ctx context.Context) (unlock func(), err error) {
	for _, sub := range []string{"objects/pack", "tips"} {
		if err := os.MkdirAll(filepath.Join(m.dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(filepath.Join(m.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock.Wait(ctx, f, flock.Exclusive, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for another fetch of the same repository: %w", err), f.Close())
	}
	left, _ := filepath.Glob(filepath.Join(m.dir, "incoming-*")) // of a fetch that was killed; the pattern is well-formed
	for _, l := range left {
		if err := os.RemoveAll(l); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return func() { _ = f.Close() }, nil
}

// Packs says how many packs the mirror has: one of each fetch that brought something.
func (m *Mirror) Packs() (int, error) {
	all, err := filepath.Glob(filepath.Join(m.dir, "objects/pack", "*.pack"))
	return len(all), err
}

// Clear removes all that was fetched; what is asked for next is fetched anew.
// Nobody may be reading the mirror.
func (m *Mirror) Clear(ctx context.Context) error {
	unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, sub := range []string{"tips", "objects"} { // in this order: no tip may be told that is not here
		if err := os.RemoveAll(filepath.Join(m.dir, sub)); err != nil {
			return fmt.Errorf("clear the mirror %s: %w", m.dir, err)
		}
	}
	return nil
}

// tip is a commit that was fetched, and the commits in its history whose parents were not.
type tip struct {
	commit string
	cut    []plumbing.Hash
	at     time.Time
}

// tips lists what the other side is told to be here, the newest first.
func (m *Mirror) tips() ([]tip, error) {
	entries, err := os.ReadDir(filepath.Join(m.dir, "tips"))
	if err != nil {
		return nil, err
	}
	var all []tip
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(m.dir, "tips", e.Name()))
		info, err2 := e.Info()
		if errors.Join(err, err2) != nil || !plumbing.IsHash(e.Name()) {
			continue // one that a crash left half-made is only not told
		}
		t := tip{commit: e.Name(), at: info.ModTime()}
		for _, line := range strings.Fields(string(text)) {
			t.cut = append(t.cut, plumbing.NewHash(line))
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b tip) int { return b.at.Compare(a.at) })
	return all, nil
}

// record writes a tip down, whole or not at all, and forgets those that are too
// old to be told to anybody.
func (m *Mirror) record(t tip) error {
	var text strings.Builder
	for _, c := range t.cut {
		text.WriteString(c.String() + "\n")
	}
	at := filepath.Join(m.dir, "tips", t.commit)
	if err := os.WriteFile(at+".new", []byte(text.String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(at+".new", at); err != nil {
		return err
	}
	all, err := m.tips()
	if err != nil {
		return err
	}
	for _, old := range all[min(len(all), 2*maxHaves):] {
		if err := os.Remove(filepath.Join(m.dir, "tips", old.commit)); err != nil {
			return err
		}
	}
	return nil
}
