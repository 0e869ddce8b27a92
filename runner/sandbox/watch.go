package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// The disk watch looks at the filesystem's free space every lookEvery, which
// costs a microsecond, and measures a sandbox only when that space shrank by
// enough to matter. Between two looks a fast disk takes some 100 MB.
const (
	lookEvery = 50 * time.Millisecond
	// walkEvery bounds what others who free space can hide.
	walkEvery = time.Second
	// walkShare is the part of the time walking may take: 1 in walkShare; and where the
	// disk's free space says that the limit may be passed, 1 in suspectShare.
	walkShare    = 20
	suspectShare = 8
	// floor is the free space at which the largest sandbox is killed, so that
	// the host keeps working; a twentieth of a small filesystem.
	floorBytes = 1 << 30
	floorShare = 20
)

// watch keeps sandboxes from filling the host's disk. Kernels without project
// quotas (and filesystems without any) leave measuring as the only way.
type watch struct {
	root string
	log  zerolog.Logger

	mu    sync.Mutex
	boxes map[*box]watched
	stop  chan struct{}
	done  chan struct{}
}

// watched is what is known of one sandbox.
type watched struct {
	limit  int64
	used   int64 // at the last walk
	space  int64 // free bytes of the filesystem then
	inodes int64 // free inodes then
	walked time.Time
	took   time.Duration // the last walk
}

func newWatch(root string, log zerolog.Logger) *watch {
	w := &watch{root: root, log: log, boxes: map[*box]watched{}, stop: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

func (w *watch) close() {
	close(w.stop)
	<-w.done
}

func (w *watch) add(b *box, limit int64) {
	space, inodes, _ := w.free()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.boxes[b] = watched{limit: limit, space: space, inodes: inodes, walked: time.Now()}
}

func (w *watch) remove(b *box) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.boxes, b)
}

// free gives the filesystem's free bytes and inodes, and its floor.
func (w *watch) free() (space, inodes, floor int64) {
	var st unix.Statfs_t
	if unix.Statfs(w.root, &st) != nil {
		return 0, 0, 0
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Ffree), min(floorBytes, int64(st.Blocks)*st.Bsize/floorShare)
}

// room refuses new sandboxes on a disk that is full already.
func (w *watch) room() error {
	if space, _, floor := w.free(); space < floor {
		return fmt.Errorf("the disk under %s has only %s left; free some (`slipway gc`), or use another --root", w.root, size(space))
	}
	return nil
}

func (w *watch) run() {
	defer close(w.done)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
			w.look()
		}
	}
}

// look measures the sandboxes that may have passed their limit, and kills those
// that did; at the floor it kills the largest.
func (w *watch) look() {
	space, inodes, floor := w.free()
	low := space < floor
	var largest *box
	var most int64
	for b, s := range w.all() {
		grown := max(0, s.space-space) + max(0, s.inodes-inodes)*perEntry
		since := time.Since(s.walked)
		if suspect := low || s.used+grown > s.limit; suspect && since > s.took*suspectShare || since > max(walkEvery, s.took*walkShare) {
			s.space, s.inodes = space, inodes
			w.measure(b, &s)
		}
		if s.used > most {
			largest, most = b, s.used
		}
	}
	if low && most > floor/16 {
		w.condemn(largest, fmt.Sprintf("the disk under %s has only %s left, and this sandbox held most of it, %s", w.root, size(space), size(most)))
	}
}

// all sandboxes that are watched, with copies of what is known.
func (w *watch) all() map[*box]watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.boxes)
}

// measure walks a sandbox's files and kills it when they are too many.
func (w *watch) measure(b *box, s *watched) {
	begun := time.Now()
	used, err := usage(b.dir)
	s.used, s.walked = used+unlinked(b), time.Now()
	s.took = s.walked.Sub(begun)
	w.mu.Lock()
	if _, ok := w.boxes[b]; ok {
		w.boxes[b] = *s
	}
	w.mu.Unlock()
	switch {
	case errors.Is(err, errTooDeep):
		w.condemn(b, err.Error())
	case s.used > s.limit:
		w.condemn(b, fmt.Sprintf("it wrote more than the %s it may (resources: disk)", size(s.limit)))
	}
}

func size(n int64) string {
	if n >= 1<<30 {
		return strconv.FormatFloat(float64(n)/(1<<30), 'g', 3, 64) + " GiB"
	}
	return strconv.FormatFloat(float64(n)/(1<<20), 'g', 3, 64) + " MiB"
}

func (w *watch) condemn(b *box, why string) {
	w.remove(b)
	if b.diskWord.CompareAndSwap(nil, &why) {
		w.log.Info().Str("sandbox", b.id).Msg("killed: " + why)
	}
	b.kill()
}

// unlinked is the space of files that have no name any more but are still open,
// which no walk can see.
func unlinked(b *box) (total int64) {
	seen := map[uint64]bool{}
	dir := b.group.paths["devices"]
	if dir == "" {
		dir = b.group.paths[""]
	}
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return 0
	}
	var disk, root unix.Stat_t // memory files (memfd, /dev/shm) lie on neither
	if unix.Stat(b.dir, &disk) != nil || unix.Stat(b.target, &root) != nil {
		return 0
	}
	for pid := range strings.Lines(string(procs)) {
		fds := filepath.Join("/proc", strings.TrimSpace(pid), "fd")
		names, _ := os.ReadDir(fds)
		for _, n := range names {
			var st unix.Stat_t
			if unix.Stat(filepath.Join(fds, n.Name()), &st) != nil || st.Nlink > 0 || st.Mode&unix.S_IFMT != unix.S_IFREG ||
				st.Dev != disk.Dev && st.Dev != root.Dev || seen[st.Ino] {
				continue
			}
			seen[st.Ino] = true
			total += st.Blocks * 512
		}
	}
	return total
}
