package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// placer attaches mounts below a sandbox's root before its namespaces are made:
// what comes with a mount namespace is locked in its place (mount_namespaces(7)).
//
// The image may be hostile: its symlinks are resolved as if its root were "/",
// by the kernel (openat2(2), RESOLVE_IN_ROOT), and mounts are attached to what
// was opened, never to a path a second time.
type placer struct {
	root  int
	owner int // of what is made on the way: the sandbox's root
}

func newPlacer(b *box) (*placer, error) {
	fd, err := unix.Open(b.target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the sandbox's root: %w", err)
	}
	return &placer{root: fd, owner: b.slot.first}, nil
}

func (p *placer) close() { dropFD(p.root) }

// attach puts a detached mount at a path of the sandbox, and closes it.
func (p *placer) attach(mount int, target string, dir bool) error {
	defer dropFD(mount)
	at, err := p.point(target, dir, 0)
	if err != nil {
		return fmt.Errorf("make the mount point %s: %w", target, err)
	}
	defer dropFD(at)
	if err := unix.MoveMount(mount, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on %s: %w", target, err)
	}
	return nil
}

// maxLinks is the kernel's limit of symlinks in one path.
const maxLinks = 40

// point opens a mount point, and makes what of its path is missing.
func (p *placer) point(target string, dir bool, links int) (int, error) {
	target = path.Clean("/" + target)
	fd, err := unix.Openat2(p.root, target, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if !errors.Is(err, unix.ENOENT) || target == "/" {
		return fd, err
	}
	parent, err := p.point(path.Dir(target), true, links)
	if err != nil {
		return -1, err
	}
	defer dropFD(parent)
	name := path.Base(target)
	err = create(parent, name, dir)
	if errors.Is(err, unix.EOVERFLOW) { // an id-mapped mount, where the host's root is nobody
		err = asUser(p.owner, func() error { return create(parent, name, dir) })
	}
	if errors.Is(err, unix.EROFS) {
		return -1, fmt.Errorf("%w: it is not there, and what it lies in is mounted read-only; make it, or mount the outer one with :rw", err)
	}
	if errors.Is(err, unix.EEXIST) && links < maxLinks {
		return p.follow(parent, target, dir, links) // a symlink to what is not there yet
	}
	if err != nil {
		return -1, err
	}
	if err := unix.Fchownat(parent, name, p.owner, p.owner, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return -1, err
	}
	return unix.Openat(parent, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// points makes the directories on which the agent puts the kernel's file
// systems. They are there already but where an image has none and the layer of
// mount points could not be mapped (a tmpfs before Linux 6.3).
func (p *placer) points(names ...string) error {
	for _, name := range names {
		at, err := p.point(name, true, 0)
		if err != nil {
			return fmt.Errorf("make the mount point %s: %w", name, err)
		}
		dropFD(at)
	}
	return nil
}

func create(parent int, name string, dir bool) error {
	if dir {
		return unix.Mkdirat(parent, name, 0o755)
	}
	f, err := unix.Openat(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err == nil {
		dropFD(f)
	}
	return err
}

// asUser does something to files as a user and group, with root's privileges.
func asUser(id int, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its ids
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		err := unix.Capget(&header, &caps[0])
		if err == nil {
			_, err = unix.SetfsgidRetGid(id)
		}
		if err == nil {
			_, err = unix.SetfsuidRetUid(id) // takes the privileges over files away
		}
		if err == nil {
			err = unix.Capset(&header, &caps[0])
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

func (p *placer) follow(parent int, target string, dir bool, links int) (int, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, path.Base(target), buf)
	if err != nil {
		return -1, err
	}
	to := string(buf[:n])
	if !path.IsAbs(to) {
		to = path.Join(path.Dir(target), to)
	}
	return p.point(to, dir, links+1)
}

// place attaches everything that comes from outside. What lies inside another
// mount comes after it, however they were named; of what goes to one place, what
// was asked for lies on top.
func (h *helper) place(b *box, s *wire.Sandbox) error {
	p, err := newPlacer(b)
	if err != nil {
		return err
	}
	defer p.close()
	type mount struct {
		depth int
		place func() error
	}
	all := []mount{
		{1, func() error { return p.points("/proc", "/sys") }},
		{1, func() error { return h.placeDev(p) }},
		{1, func() error { return placeOut(p, b) }},
		{2, func() error { return h.placeEtc(p, b, s) }},
	}
	if s.Secrets {
		all = append(all, mount{depth(wire.SecretsDir), func() error {
			return placeTmpfs(p, b, wire.Tmpfs{Target: wire.SecretsDir, Size: 4 << 20, Mode: 0o755})
		}})
	}
	for _, m := range s.Binds {
		all = append(all, mount{depth(m.Target), func() error { return h.placeBind(p, b, m) }})
	}
	for _, t := range s.Tmpfs {
		all = append(all, mount{depth(t.Target), func() error { return placeTmpfs(p, b, t) }})
	}
	slices.SortStableFunc(all, func(x, y mount) int { return x.depth - y.depth })
	for _, m := range all {
		if err := m.place(); err != nil {
			return err
		}
	}
	return nil
}

func depth(target string) int { return strings.Count(path.Clean(target), "/") }

// placeOut binds the directory whose files are kept.
func placeOut(p *placer, b *box) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, filepath.Join(b.dir, outName), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open /out: %w", err)
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}); err != nil {
		dropFD(fd)
		return fmt.Errorf("restrict /out: %w", err)
	}
	return p.attach(fd, "/out", true)
}

// placeBind lends a directory or file of the host, its owners mapped.
func (h *helper) placeBind(p *placer, b *box, m wire.Bind) error {
	info, err := os.Stat(m.Source)
	if err != nil {
		return fmt.Errorf("bind %s: %w", m.Source, err)
	}
	attrs := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if m.ReadOnly {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	fd, err := idmapped(m.Source, b.slot, attrs)
	if err == nil {
		err = p.attach(fd, m.Target, info.IsDir())
	}
	if err != nil {
		return fmt.Errorf("bind %s: %w", m.Source, err)
	}
	return nil
}

func placeTmpfs(p *placer, b *box, t wire.Tmpfs) error {
	fd, err := newTmpfs(b.slot.first, t)
	if err != nil {
		return err
	}
	return p.attach(fd, t.Target, true)
}

// newTmpfs makes a detached tmpfs. first is the host's id of the sandbox's root.
func newTmpfs(first int, t wire.Tmpfs) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make a tmpfs: %w", err)
	}
	defer dropFD(fs)
	for _, o := range [][2]string{
		{"size", fmt.Sprint(t.Size)}, {"mode", fmt.Sprintf("%o", t.Mode)}, {"uid", fmt.Sprint(first + t.UID)}, {"gid", fmt.Sprint(first + t.GID)},
	} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("make a tmpfs: %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("make a tmpfs: %w", err)
	}
	attrs := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	if !t.Exec {
		attrs |= unix.MOUNT_ATTR_NOEXEC
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("make a tmpfs: %w", err)
	}
	return fd, nil
}
