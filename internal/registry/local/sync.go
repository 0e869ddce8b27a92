package local

import (
	"errors"
	"maps"
	"path"
	"strings"
	"sync"
)

// Names become durable together: links and new directories are only noted, and
// the manifest that stands on them syncs all directories at once, its own last.
// Then the first sync takes the others along on most file systems.
//
// A manifest has its name before what it stands on is synced. A kill changes
// nothing about that, and after a power cut a journal holds what came before
// whenever it holds the name.
type pending struct {
	mu   sync.Mutex
	dirs map[string]int // how often a name was made in it
}

func (p *pending) note(dir string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dirs == nil {
		p.dirs = map[string]int{}
	}
	p.dirs[dir]++
}

func (p *pending) all() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.dirs)
}

// done forgets a directory in which nothing was made since it was looked at.
func (p *pending) done(dir string, seen int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dirs[dir] == seen {
		delete(p.dirs, dir)
	}
}

// settle makes durable what was noted in the repository or above it, then dirs.
func (r *Repository) settle(dirs ...string) error {
	own := r.path()
	for dir, seen := range r.store.pending.all() {
		if !strings.HasPrefix(dir+"/", own+"/") && !strings.HasPrefix(own+"/", dir+"/") {
			continue
		}
		if err := r.store.syncDir(dir); err != nil {
			return explain(err)
		}
		r.store.pending.done(dir, seen)
	}
	for _, dir := range dirs {
		if err := r.store.syncDir(r.path(dir)); err != nil {
			return explain(err)
		}
	}
	return nil
}

// makeDir makes a directory with those above it, and notes which got a new one.
func (s *Store) makeDir(dir string) error {
	for at := dir; at != "."; at = path.Dir(at) {
		if info, err := s.root.Lstat(at); err == nil && info.IsDir() {
			break
		}
		s.pending.note(path.Dir(at))
	}
	return explain(s.root.MkdirAll(dir, 0o700))
}

func (s *Store) syncDir(dir string) error {
	f, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
