package sandbox

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slipway/runner/wire"
)

const (
	// settleLimit is how long a helper waits for another that is still cleaning
	// up after its runner died.
	settleLimit = 20 * time.Second
	// abolishLimit is how long the processes of one dead sandbox get to end.
	abolishLimit = 10 * time.Second
)

// reap removes what helpers left behind that died themselves: processes,
// cgroups and files. Their mounts went with them. A session whose lock is held
// belongs to a living helper: it is waited for, then left alone. One that keeps
// failed tests is left alone at once.
func reap(cfg Config, own string) {
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	live := map[string]bool{own: true}
	for _, name := range entries(cfg.Root) {
		if name == own {
			continue
		}
		dir := filepath.Join(cfg.Root, name)
		lock, err := lockDir(dir)
		for err != nil && !os.IsNotExist(err) && !strings.HasPrefix(name, newPrefix) && !keeps(dir) && pause(ctx, 20*time.Millisecond) {
			lock, err = lockDir(dir)
		}
		if os.IsNotExist(err) {
			continue // its owner removed it
		}
		if err != nil {
			live[name] = true
			continue
		}
		reapCgroups(cfg, func(session string) bool { return session == name })
		if err := removeTree(dir); err != nil {
			cfg.Log.Warn().Err(err).Str("session", name).Msg("a dead session's files stay until the next start")
		}
		drop(lock)
	}
	reapCgroups(cfg, func(session string) bool { return !live[session] })
}

// keeps reports whether a session keeps what is frozen.
func keeps(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, wire.FrozenName))
	return err == nil
}

// takenRanges are the ranges of ids of the sandboxes that other helpers keep.
func takenRanges(root string) map[int]bool {
	taken := map[int]bool{}
	for _, name := range entries(root) {
		dir := filepath.Join(root, name)
		data, err := os.ReadFile(filepath.Join(dir, wire.FrozenName))
		var ranges []int
		if err != nil || json.Unmarshal(data, &ranges) != nil {
			continue
		}
		if lock, err := lockDir(dir); err == nil { // its owner is dead, and reaped soon
			drop(lock)
			continue
		}
		for _, n := range ranges {
			taken[n] = true
		}
	}
	return taken
}

// pause waits, and reports whether ctx is still good.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// reapCgroups kills and removes the sandboxes of the sessions that dead names.
func reapCgroups(cfg Config, dead func(session string) bool) {
	seen := map[string]bool{}
	for _, h := range hierarchies() {
		for _, name := range entries(filepath.Join(h, cfg.Cgroup)) {
			session, _, ok := strings.Cut(name, ".")
			if !ok || len(session) != sessionLen || seen[name] || !dead(session) {
				continue
			}
			seen[name] = true
			if err := abolish(filepath.Join(cfg.Cgroup, name), abolishLimit); err != nil {
				cfg.Log.Warn().Err(err).Msg("a dead sandbox stays until the next start")
			}
		}
	}
}

// entries are the names of the directories in dir.
func entries(dir string) []string {
	list, _ := os.ReadDir(dir) // a root that is not there yet has none
	var names []string
	for _, e := range list {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}
