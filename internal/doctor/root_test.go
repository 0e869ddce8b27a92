package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"slipway/internal/need"

	"golang.org/x/sys/unix"
)

func TestRoot(t *testing.T) {
	need.Root(t)
	dir := need.OpenDir(t)
	file := filepath.Join(dir, "file")
	closed := filepath.Join(dir, "closed")
	link := filepath.Join(dir, "link")
	for _, err := range []error{os.WriteFile(file, nil, 0o600), os.Mkdir(closed, 0o700), os.Symlink(closed, link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		root, finding string
		state         State
		detail, fix   string
	}{
		"there":            {dir, "root directory", OK, "is writable", ""},
		"not there yet":    {filepath.Join(dir, "a", "b"), "root directory", OK, "can be made", ""},
		"relative":         {"var/slipway", "root directory", Fail, "not an absolute path", "--root"},
		"a file":           {file, "root directory", Fail, "is not a directory", "--root"},
		"below a file":     {filepath.Join(file, "x"), "root directory", Fail, "not a directory", "--root"},
		"closed":           {closed, "way to the root", Fail, closed + " has mode 0700", "chmod o+x " + closed},
		"below closed":     {filepath.Join(closed, "x"), "way to the root", Fail, closed, "chmod o+x"},
		"a link to closed": {link, "way to the root", Fail, closed, "chmod o+x"},
		"proc":             {"/proc", "root directory", Fail, "", "--root"},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, find(t, checkRoot(realInput(t, tt.root), nil), tt.finding), tt.state, tt.detail, tt.fix)
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); err == nil {
		t.Error("the root was made")
	}
	if left, _ := filepath.Glob(dir + "/.*"); len(left) > 0 {
		t.Errorf("left %v behind", left)
	}
}

// What a file system's mount says is tried on real ones, in a namespace that
// goes with its thread.
func TestRootOnOtherMounts(t *testing.T) {
	need.Root(t)
	for name, tt := range map[string]struct {
		flags       uintptr
		data        string
		finding     string
		state       State
		detail, fix string
	}{
		"read-only": {unix.MS_RDONLY, "", "root directory", Fail, "mounted read-only", "remount,rw"},
		"noexec":    {unix.MS_NOEXEC, "", "root directory", Fail, "mounted noexec", "remount,exec"},
		"in memory": {0, "", "file system", Warn, "on tmpfs", "ext4, xfs or btrfs"},
		"small":     {0, "size=10m", "disk space", Fail, "GiB free", "slipway gc"},
		"smallish":  {0, "size=2g", "disk space", Warn, "a few images fill that", "slipway gc"},
		"no inodes": {0, "size=100g,nr_inodes=1000", "disk space", Warn, "files more", "slipway gc"},
		"no files":  {0, "nr_inodes=1", "root directory", Fail, "is full", "slipway gc"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := need.OpenDir(t)
			var all []Finding
			err := inThread(func() error {
				if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
					return err
				}
				if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
					return err
				}
				if err := unix.Mount("none", dir, "tmpfs", tt.flags, tt.data); err != nil {
					return err
				}
				in := realInput(t, dir)
				in.UID = 1 // mounts would be tried on threads outside this namespace
				all = checkRoot(in, nil)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			want(t, find(t, all, tt.finding), tt.state, tt.detail, tt.fix)
		})
	}
}

func TestOverlayOnOverlay(t *testing.T) {
	need.Root(t)
	dir := need.OpenDir(t)
	err := tryStack(dir, "outer", func(s stack) error {
		if err := mountOverlay(s, s.lower); err != nil {
			return err
		}
		inner, err := newStack(s.merged, "inner")
		if err != nil {
			return err
		}
		if err := mountOverlay(inner, inner.lower); err == nil {
			t.Error("an overlay took another as its writable layer; the advice about containers is out of date")
			return unix.Unmount(inner.merged, unix.MNT_DETACH)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFilesystemNames(t *testing.T) {
	for magic, want := range map[int64]struct {
		name string
		bad  bool
	}{
		unix.EXT4_SUPER_MAGIC: {"ext4", false}, unix.BTRFS_SUPER_MAGIC: {"btrfs", false}, unix.XFS_SUPER_MAGIC: {"xfs", false},
		unix.OVERLAYFS_SUPER_MAGIC: {"overlayfs", true}, unix.NFS_SUPER_MAGIC: {"nfs", true}, 0x1234: {"file system 0x1234", false},
	} {
		if name, trouble := filesystem(magic); name != want.name || (trouble != "") != want.bad {
			t.Errorf("%#x is %q, %q; want %+v", magic, name, trouble, want)
		}
	}
}
