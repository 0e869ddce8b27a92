package dockerfile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/moby/buildkit/cache/contenthash"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
)

// tree is a local directory as BuildKit would have it after the transfer: what
// the ignore file and the paths in use leave of it, owned by root.
type tree struct {
	ref     *ref // answers BuildKit's questions for content digests
	entries []entry
}

// entry is one file, directory or link of a tree.
type entry struct {
	path string // slash-separated, relative
	stat *fstypes.Stat
	sum  digest.Digest // of header and content, without name and times
}

// readTree reads what the source op asks for from dir.
func readTree(ctx context.Context, dir string, attrs map[string]string, digests *Digests) (*tree, error) {
	files, err := transferred(dir, attrs)
	if err != nil {
		return nil, err
	}
	t := &tree{}
	err = files.Walk(ctx, "/", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*fstypes.Stat)
		if !ok {
			return fmt.Errorf("%s: no status", path)
		}
		t.entries = append(t.entries, entry{path: filepath.ToSlash(path), stat: st})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	if err := t.digest(ctx, dir, digests); err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	return t, t.index()
}

// GitDir is left out of a context, as BuildKit leaves it out of one that it clones:
// each clone has another, and an image of the same commit would never be the same.
const GitDir = ".git"

// transferred is dir through the same filters as the client's side of a build.
func transferred(dir string, attrs map[string]string) (fsutil.FS, error) {
	files, err := fsutil.NewFS(dir)
	if err != nil {
		return nil, err
	}
	files, err = fsutil.NewFilterFS(files, &fsutil.FilterOpt{Map: func(_ string, st *fstypes.Stat) fsutil.MapResult {
		st.Uid, st.Gid = 0, 0
		return fsutil.MapResultKeep
	}})
	if err != nil {
		return nil, err
	}
	var opt fsutil.FilterOpt
	for attr, into := range map[string]*[]string{
		pb.AttrIncludePatterns: &opt.IncludePatterns,
		pb.AttrExcludePatterns: &opt.ExcludePatterns,
		pb.AttrFollowPaths:     &opt.FollowPaths,
	} {
		if v := attrs[attr]; v != "" {
			if err := json.Unmarshal([]byte(v), into); err != nil {
				return nil, fmt.Errorf("%s: %w", attr, err)
			}
		}
	}
	opt.ExcludePatterns = append(opt.ExcludePatterns, GitDir)
	files, err = fsutil.NewFilterFS(files, &opt)
	if err != nil {
		return nil, err
	}
	return fsutil.WithHardlinkReset(files), nil
}

// digest fills in the sums, reading several files at once.
func (t *tree) digest(ctx context.Context, dir string, digests *Digests) error {
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan *entry)
	for range max(2, runtime.GOMAXPROCS(0)) {
		group.Go(func() error {
			buf := make([]byte, 64<<10)
			for e := range work {
				sum, err := fileDigest(filepath.Join(dir, filepath.FromSlash(e.path)), e.stat, digests, buf)
				if err != nil {
					return err
				}
				e.sum = sum
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(work)
		for i := range t.entries {
			e := &t.entries[i]
			if e.hasContent() {
				select {
				case work <- e:
					continue
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			h, err := contenthash.NewFromStat(e.stat)
			if err != nil {
				return err
			}
			e.sum = digest.NewDigest(digest.SHA256, h)
		}
		return nil
	})
	return group.Wait()
}

func (e *entry) hasContent() bool {
	return os.FileMode(e.stat.Mode)&os.ModeType == 0 && e.stat.Linkname == ""
}

func fileDigest(path string, st *fstypes.Stat, digests *Digests, buf []byte) (digest.Digest, error) {
	var id digested
	usable := false
	if digests != nil {
		before, err := os.Lstat(path)
		if err != nil {
			return "", err
		}
		if id, usable = stampOf(before); usable {
			if sum, ok := digests.known(path, id); ok {
				return sum, nil
			}
		}
	}
	now := time.Now()
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read from
	h, err := contenthash.NewFromStat(st)
	if err != nil {
		return "", err
	}
	// Through a type that has only Read: a file of its own would be given a
	// buffer of its own.
	if _, err := io.CopyBuffer(onlyWriter{h}, onlyReader{f}, buf); err != nil {
		return "", err
	}
	sum := digest.NewDigest(digest.SHA256, h)
	if !usable {
		return sum, nil
	}
	if after, err := f.Stat(); err == nil {
		if still, ok := stampOf(after); ok && still == id {
			digests.remember(path, id, sum, now)
		}
	}
	return sum, nil
}

type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// index hands the entries to BuildKit's content hash, as the receiving side of
// a transfer does.
func (t *tree) index() error {
	t.ref = newRef()
	cc, err := contenthash.GetCacheContext(context.Background(), t.ref)
	if err != nil {
		return err
	}
	for _, e := range t.entries {
		fi := hashed{StatInfo: &fsutil.StatInfo{Stat: e.stat}, sum: e.sum}
		if err := cc.HandleChange(fsutil.ChangeKindAdd, filepath.FromSlash(e.path), fi, nil); err != nil {
			return err
		}
	}
	if len(t.entries) == 0 {
		// An index that never saw a change has no root.
		fi := hashed{StatInfo: &fsutil.StatInfo{Stat: &fstypes.Stat{}}}
		if err := errors.Join(
			cc.HandleChange(fsutil.ChangeKindAdd, "x", fi, nil),
			cc.HandleChange(fsutil.ChangeKindDelete, "x", nil, nil),
		); err != nil {
			return err
		}
	}
	// Kept in the ref, it survives BuildKit forgetting it.
	return contenthash.SetCacheContext(context.Background(), t.ref, cc)
}

// close makes BuildKit forget the tree.
func (t *tree) close() { contenthash.ClearCacheContext(t.ref) }

// hashed is file information that brings its digest along.
type hashed struct {
	*fsutil.StatInfo
	sum digest.Digest
}

var _ contenthash.Hashed = hashed{}

// Digest implements contenthash.Hashed.
func (h hashed) Digest() digest.Digest { return h.sum }

var errNotInContext = errors.New("not in the build context")

func (e *entry) dir() bool  { return os.FileMode(e.stat.Mode).IsDir() }
func (e *entry) link() bool { return os.FileMode(e.stat.Mode)&os.ModeSymlink != 0 }
