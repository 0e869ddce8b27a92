// Package sandbox makes and removes sandboxes for the runner, which asks over a
// socket. It is linked into the helper program slipway-sandbox alone: starting a
// process copies the memory map of the one that starts it, so that one must be
// small and hold nothing else.
//
// It lives in a mount namespace of its own, where every overlay it mounts goes
// when it goes. When its runner's socket ends it kills and removes all it made,
// less what it was asked to keep of failed tests: for that it stays until its time
// is up. It never runs the command of a test; the agent does.
package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// Config of the helper.
type Config struct {
	Root   string // directory of all sandboxes' writable layers
	Cgroup string // absolute parent of all sandboxes' cgroups
	Agent  string // path of slipway-agent
	Log    zerolog.Logger
}

// helper makes sandboxes for one runner.
type helper struct {
	cfg     Config
	session *session
	mounts  string // directory of overlay mount points, seen by this process alone
	agent   *os.File
	slots   *slots
	filters filters
	masked  []string
	trees   map[string]string // mount points of cgroup controllers, version 1
	null    *os.File
	watch   *watch

	mu        sync.Mutex
	sandboxes map[string]*box // claimed names; nil while one is being made
	calls     sync.WaitGroup
	ahead     sync.WaitGroup
	names     atomic.Uint64 // of directories
	settled   chan struct{} // closed when leftovers are reaped
	freezer   freezer
	ended     chan os.Signal // asked to end: obeyed when the runner is gone

	write sync.Mutex
}

// Serve answers calls on the socket until it ends, then removes everything. An
// error means it could not start or that something could not be removed.
func Serve(cfg Config, socket *os.File) error {
	// Whatever the terminal or a broken pipe says, cleaning up comes first: the
	// runner ends this process by closing the socket.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	h, err := open(cfg)
	if err != nil {
		h.say(socket, wire.Reply{Protocol: wire.Protocol, Error: err.Error()})
		return err
	}
	h.say(socket, wire.Reply{Protocol: wire.Protocol})
	h.receive(socket)
	err = h.removeAll()
	h.linger(socket)
	return errors.Join(err, h.close())
}

func open(cfg Config) (*helper, error) {
	h := &helper{cfg: cfg, sandboxes: map[string]*box{}, settled: make(chan struct{}), mounts: mountsDir, ended: make(chan os.Signal, 1)}
	h.freezer.all = map[string]*frozen{}
	signal.Notify(h.ended, unix.SIGTERM)
	if err := privateMounts(cfg.Root); err != nil {
		return h, err
	}
	var err error
	if err := newDev(h.devDir()); err != nil {
		return h, err
	}
	if h.agent, err = sealAgent(cfg.Agent); err != nil {
		return h, err
	}
	if h.session, err = newSession(cfg.Root); err != nil {
		return h, err
	}
	h.slots = newSlots(cfg.Cgroup, h.agent, takenRanges(cfg.Root))
	if h.filters, err = newFilters(); err != nil {
		return h, err
	}
	h.masked = maskedPaths()
	if h.trees, err = findTrees(); err != nil {
		return h, err
	}
	if h.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return h, err
	}
	h.watch = newWatch(cfg.Root, cfg.Log)
	if err := h.makeSkeleton(); err != nil {
		return h, err
	}
	h.prepare()
	go func() {
		defer close(h.settled)
		reap(cfg, h.session.name)
	}()
	return h, nil
}

// receive handles calls until the runner is gone, each in its own goroutine.
func (h *helper) receive(socket *os.File) {
	buf, oob := make([]byte, wire.MaxMessage), make([]byte, unix.CmsgSpace(4*wire.MaxMembers))
	for {
		n, on, _, _, err := unix.Recvmsg(int(socket.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			break
		}
		passed := passedFiles(oob[:on])
		var c wire.Call
		if err := json.Unmarshal(buf[:n], &c); err != nil {
			h.cfg.Log.Error().Err(err).Msg("a call that is not JSON")
			dropFiles(passed)
			continue
		}
		h.calls.Add(1)
		go func() {
			defer h.calls.Done()
			h.say(socket, h.answer(c, passed))
		}()
	}
	h.calls.Wait()
}

func (h *helper) say(socket io.Writer, r wire.Reply) {
	b, err := json.Marshal(r)
	if err != nil {
		b = fmt.Appendf(nil, `{"Seq":%d,"Error":%q}`, r.Seq, err)
	}
	h.write.Lock()
	defer h.write.Unlock()
	_, _ = socket.Write(b) // a runner that is gone is noticed by the reader
}

// answer carries one call out.
func (h *helper) answer(c wire.Call, passed []*os.File) wire.Reply {
	r := wire.Reply{Seq: c.Seq}
	if c.Op != wire.Freeze {
		defer dropFiles(passed)
	}
	var err error
	switch c.Op {
	case wire.Create:
		var agent *os.File
		if len(passed) > 0 {
			agent = passed[0]
		}
		r.Made, err = h.create(c.ID, c.Sandbox, agent)
	case wire.Freeze:
		err = h.freeze(c.Frozen, passed)
	case wire.Settle:
		<-h.settled
	case wire.Measure, wire.Kill, wire.Destroy:
		b := h.find(c.ID)
		if b == nil {
			err = fmt.Errorf("there is no sandbox %s", c.ID)
			break
		}
		switch c.Op {
		case wire.Measure:
			r.Counts = b.measure()
		case wire.Kill:
			b.kill()
		case wire.Destroy:
			h.forget(c.ID)
			err = h.destroy(b)
		}
	default:
		err = fmt.Errorf("unknown operation %q", c.Op)
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

func (h *helper) find(id string) *box {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sandboxes[id]
}

func (h *helper) forget(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sandboxes, id)
}

// removeAll removes the sandboxes that nobody asked to keep.
func (h *helper) removeAll() error {
	h.ahead.Wait()
	var errs []error
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, b := range h.sandboxes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := h.destroy(b); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// close removes everything else that this helper made.
func (h *helper) close() error {
	h.freezer.live.Wait() // what was frozen may be on its way out
	h.freezer.server.close()
	h.watch.close()
	select {
	case <-h.settled:
	case <-time.After(settleLimit):
	}
	err := h.session.close()
	if len(entries(h.cfg.Root)) == 0 {
		removeEmptyParents(h.cfg.Cgroup) // else whoever ends last does: it may be making sandboxes in them
	}
	h.slots.close()
	return err
}

// mountsDir holds a tmpfs of this process alone, with the mount points of the
// overlays. They cannot lie below the root: a sandbox's own ids must be able to
// walk there, and the root may be in a directory closed to them.
const mountsDir = "/run/slipway-sandbox"

// privateMounts makes mounts made here invisible outside, while later mounts
// of the host still appear here. The runner started this process in a mount
// namespace of its own.
func privateMounts(root string) error {
	if same, err := sameMounts(); err != nil || same {
		return fmt.Errorf("slipway-sandbox must be started by slipway, in a mount namespace of its own (%w)", errors.Join(err, errShared))
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("detach from the host's mounts: %w; slipway needs root (CAP_SYS_ADMIN)", err)
	}
	if err := leaveStores(root); err != nil {
		return err
	}
	if err := os.MkdirAll(mountsDir, 0o755); err != nil {
		return fmt.Errorf("make the directory of mount points: %w", err)
	}
	if err := unix.Mount("tmpfs", mountsDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=64m"); err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", mountsDir, err)
	}
	return nil
}

// leaveStores takes the volume stores of other roots out of this namespace. Where / is
// no shared mount, nobody would tell it that they are gone, and it would hold them,
// their loop devices and what their image files lie on for as long as it lives.
func leaveStores(root string) error {
	own, _ := os.Stat(filepath.Join(filepath.Dir(root), "volumes", "data")) // nil: it has none
	stores, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.HasSuffix(m.Mountpoint, "/volumes/data"), false
	})
	if err != nil {
		return fmt.Errorf("read the mounts: %w", err)
	}
	for _, m := range stores {
		image, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(m.Source), "loop/backing_file"))
		at, aerr := os.Stat(m.Mountpoint)
		if err != nil || aerr != nil || !strings.Contains(string(image), "/volumes/store.img") || own != nil && os.SameFile(at, own) {
			continue
		}
		_ = unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // or it is held, as before
	}
	return nil
}

var errShared = errors.New("it shares its parent's")

func sameMounts() (bool, error) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return false, err
	}
	parent, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()))
	if err != nil {
		return false, nil //nolint:nilerr // a parent that died at once leaves nothing to compare with, and the socket ends next
	}
	return own == parent, nil
}
