package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"github.com/moby/sys/mountinfo"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// Build steps run as these host users: far above what people and daemons have.
const (
	firstHostID = 1 << 30
	stepIDCount = 1 << 16
)

func stepIDs() *user.IdentityMapping {
	m := []user.IDMap{{ID: 0, ParentID: firstHostID, Count: stepIDCount}}
	return &user.IdentityMapping{UIDMaps: m, GIDMaps: m}
}

// idmap shows the snapshots directory with owners shifted into the steps' user
// namespace. One mount serves all steps; it is made for the first of them,
// because a build whose steps are all cached needs none.
type idmap struct {
	from  string // the snapshots, as on disk; ends in a slash
	to    string // the same, shifted
	pool  string // where BuildKit mounts cache mounts that steps share; ends in a slash
	binds string // single files and directories, shifted

	once sync.Once
	err  error
	fd   *os.File // the user namespace
}

func newIDMap(root string) *idmap {
	return &idmap{
		from:  filepath.Join(snapshotDir(root), "snapshots") + "/",
		to:    filepath.Join(usernsDir(root), "snapshots"),
		pool:  mountDir(root) + "/",
		binds: filepath.Join(usernsDir(root), "binds"),
	}
}

func (m *idmap) open() error {
	m.once.Do(func() { m.err = m.mount() })
	return m.err
}

func (m *idmap) mount() error {
	// The last entry maps host root, who does the mounting: overlayfs could not
	// make its work directory otherwise. The steps' namespace lacks that ID.
	ids := fmt.Sprintf("0:%d:%d,%d:0:1", firstHostID, stepIDCount, stepIDCount)
	fd, err := mount.GetUsernsFD(ids, ids)
	if err != nil {
		return err
	}
	for _, d := range []string{m.to, m.binds} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return errors.Join(err, fd.Close())
		}
	}
	if err := mount.IDMapMount(filepath.Clean(m.from), m.to, int(fd.Fd())); err != nil {
		return errors.Join(fmt.Errorf("%w; idmapped mounts need Linux 5.12 and a file system that has them (ext4, xfs, btrfs; overlayfs on 6.x only as a mount of its own)", err), fd.Close())
	}
	m.fd = fd
	return nil
}

func (m *idmap) close() error {
	if m.fd == nil {
		return nil
	}
	return errors.Join(unix.Unmount(m.to, unix.MNT_DETACH), m.fd.Close())
}

// shift makes src mount with shifted owners. A nil source stays nil: that is a
// mount the runtime makes, such as tmpfs.
func (m *idmap) shift(src executor.Mountable) executor.Mountable {
	if src == nil {
		return nil
	}
	return &shiftedMountable{m, src}
}

type shiftedMountable struct {
	ids *idmap
	executor.Mountable
}

func (s *shiftedMountable) Mount(ctx context.Context, readonly bool) (executor.MountableRef, error) {
	ref, err := s.Mountable.Mount(ctx, readonly)
	if err != nil {
		return nil, err
	}
	return &shiftedRef{s.ids, ref}, nil
}

type shiftedRef struct {
	ids *idmap
	executor.MountableRef
}

func (r *shiftedRef) Mount() (_ []mount.Mount, _ func() error, err error) {
	mounts, release, err := r.MountableRef.Mount()
	if err != nil {
		return nil, nil, err
	}
	var undo []func() error
	all := func() error {
		var errs []error
		for _, f := range undo {
			errs = append(errs, f())
		}
		if release != nil {
			errs = append(errs, release())
		}
		return errors.Join(errs...)
	}
	out := make([]mount.Mount, len(mounts))
	for i, m := range mounts {
		shifted, f, err := r.ids.mountFor(m)
		if err != nil {
			return nil, nil, errors.Join(err, all())
		}
		if f != nil {
			undo = append(undo, f)
		}
		out[i] = shifted
	}
	return out, all, nil
}

// mountFor is m with shifted owners, and how to undo what that took.
func (m *idmap) mountFor(in mount.Mount) (mount.Mount, func() error, error) {
	if in.Type == "bind" && strings.HasPrefix(in.Source, m.pool) {
		if ov, ok := overlayBehind(in.Source); ok {
			in = ov
		}
	}
	switch {
	case in.Type == "overlay":
		in.Options = m.moveLayers(in.Options)
	case strings.HasPrefix(in.Source, m.from):
		in.Source = m.moved(in.Source)
	case in.Type == "bind" || in.Type == "rbind" || in.Type == "": // a secret, an ssh socket
		target, undo, err := m.bind(in.Source)
		if err != nil {
			return in, nil, fmt.Errorf("show %s to a build step: %w", in.Source, err)
		}
		in.Source = target
		return in, undo, nil
	}
	return in, nil, nil
}

func (m *idmap) moved(path string) string {
	if rest, ok := strings.CutPrefix(path, m.from); ok {
		return m.to + "/" + rest
	}
	return path
}

func (m *idmap) moveLayers(options []string) []string {
	out := make([]string, len(options))
	for i, o := range options {
		k, v, ok := strings.Cut(o, "=")
		if ok && (k == "lowerdir" || k == "upperdir" || k == "workdir") {
			dirs := strings.Split(v, ":")
			for j := range dirs {
				dirs[j] = m.moved(dirs[j])
			}
			o = k + "=" + strings.Join(dirs, ":")
		}
		out[i] = o
	}
	return out
}

// overlayBehind takes apart the mount that BuildKit made for a shared cache
// mount, so that the step gets the same layers through the shifted directory.
func overlayBehind(point string) (mount.Mount, bool) {
	found, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(point))
	if err != nil || len(found) != 1 || found[0].FSType != "overlay" {
		return mount.Mount{}, false
	}
	m := mount.Mount{Type: "overlay", Source: "overlay", Options: []string{"index=off"}}
	for _, o := range strings.Split(found[0].VFSOptions, ",") {
		if k, _, _ := strings.Cut(o, "="); k == "lowerdir" || k == "upperdir" || k == "workdir" {
			m.Options = append(m.Options, o)
		}
	}
	return m, true
}

// bind makes an idmapped mount of one file or directory.
func (m *idmap) bind(source string) (string, func() error, error) {
	dir, err := os.MkdirTemp(m.binds, "")
	if err != nil {
		return "", nil, err
	}
	target := filepath.Join(dir, "x")
	undo := func() error {
		err := unix.Unmount(target, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) { // never mounted
			err = nil
		}
		return errors.Join(err, os.RemoveAll(dir))
	}
	if err := errors.Join(os.Chmod(dir, 0o711), makeLike(source, target)); err != nil {
		return "", nil, errors.Join(err, undo())
	}
	err = mount.IDMapMount(source, target, int(m.fd.Fd()))
	if errors.Is(err, unix.EINVAL) && onTmpfs(source) { // before Linux 6.3
		if err = give(source); err == nil {
			err = unix.Mount(source, target, "", unix.MS_BIND, "")
		}
	}
	if err != nil {
		return "", nil, errors.Join(err, undo())
	}
	return target, undo, nil
}

func onTmpfs(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.TMPFS_MAGIC
}

// give makes a secret, which BuildKit writes for one step alone, the file of the step's user.
func give(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("look at its owner: %w", err)
	}
	if st.Uid >= stepIDCount || st.Gid >= stepIDCount || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("only a file of the users 0 to 65535 can be shown without Linux 6.3")
	}
	return os.Chown(path, firstHostID+int(st.Uid), firstHostID+int(st.Gid))
}

// makeLike makes an empty mount point for source.
func makeLike(source, target string) error {
	fi, err := os.Stat(source)
	if err != nil {
		return err
	}
	if fi.IsDir() {
		return os.Mkdir(target, 0o755)
	}
	return os.WriteFile(target, nil, fs.FileMode(0o644))
}
