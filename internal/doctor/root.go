package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Below these slipway warns, or cannot work: a base image with its packages
// takes half a GiB packed and unpacked.
const (
	lowSpace    = 5 << 30
	noSpace     = 512 << 20
	lowInodes   = 100_000
	traversable = 0o001
)

// checkRoot looks at the directory slipway keeps everything in, and at what its
// file system can do.
func checkRoot(in Input, userns *os.File) (all []Finding) {
	const name = "root directory"
	at, err := existing(in.Root)
	if err != nil {
		return []Finding{fail(name, err.Error(), "choose another directory with --root")}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return []Finding{fail(name, (&os.PathError{Op: "statfs", Path: at, Err: err}).Error(), "choose another directory with --root")}
	}
	dir, err := os.MkdirTemp(at, ".slipway-doctor-*")
	if err != nil {
		return []Finding{unwritable(at, err)}
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			all = append(all, warn(name, "a probe stayed behind: "+err.Error(), "rm -r "+dir))
		}
	}()
	all = []Finding{writable(in.Root, st), checkPath(at), checkFilesystem(at, st), checkSpace(at, st)}
	if in.UID != 0 {
		return all
	}
	return append(all, checkMounts(dir, fsName(st), userns)...)
}

// existing is the directory itself or the nearest above it that there is,
// without symlinks.
func existing(dir string) (string, error) {
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("%q is not an absolute path", dir)
	}
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && at != "/":
			continue
		case err != nil:
			return "", err
		case !info.IsDir():
			return "", fmt.Errorf("%s is not a directory", at)
		}
		return filepath.EvalSymlinks(at)
	}
}

func unwritable(at string, err error) Finding {
	const name = "root directory"
	switch {
	case errors.Is(err, unix.EROFS):
		return fail(name, at+" is mounted read-only", "mount -o remount,rw the file system of "+at+", or choose another directory with --root")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fail(name, at+" is full: "+err.Error(), "free space there (slipway gc), or choose another directory with --root")
	case errors.Is(err, fs.ErrPermission):
		return fail(name, err.Error(), "sudo slipway doctor, or choose another directory with --root")
	}
	return fail(name, err.Error(), "choose another directory with --root")
}

func writable(root string, st unix.Statfs_t) Finding {
	const name = "root directory"
	if st.Flags&unix.ST_NOEXEC != 0 {
		return fail(name, root+" is mounted noexec; no program in an image could run", "mount -o remount,exec the file system of "+root+", or choose another directory with --root")
	}
	if _, err := os.Stat(root); err != nil {
		return ok(name, root+" can be made")
	}
	return ok(name, root+" is writable")
}

// checkPath warns where a directory on the way is closed to others: build steps
// run under mapped ids and would not reach their files.
func checkPath(at string) Finding {
	const name = "way to the root"
	for dir := at; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && info.Mode().Perm()&traversable == 0 {
			return fail(name, fmt.Sprintf("%s has mode %#o; sandboxes run as other users and could not pass it", dir, info.Mode().Perm()), "chmod o+x "+dir+", or choose another directory with --root")
		}
		if dir == filepath.Dir(dir) {
			return ok(name, "open to the users of sandboxes")
		}
	}
}

// filesystems are told by statfs(2)'s f_type. trouble says why one is a bad
// choice; what decides is the overlay that is tried.
func filesystem(magic int64) (name, trouble string) {
	switch uint32(magic) {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4", ""
	case unix.XFS_SUPER_MAGIC:
		return "xfs", ""
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", ""
	case unix.F2FS_SUPER_MAGIC:
		return "f2fs", ""
	case 0xca451a4e:
		return "bcachefs", ""
	case 0x2fc12fc1:
		return "zfs", ""
	case unix.TMPFS_MAGIC:
		return "tmpfs", "images are kept in memory and are gone after a restart"
	case unix.RAMFS_MAGIC:
		return "ramfs", "images are kept in memory without a limit"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs", "layers cannot be stacked on it; this is a container's own file system"
	case unix.NFS_SUPER_MAGIC:
		return "nfs", "overlayfs cannot write to it, and locks are unsure"
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return "smb", "it has neither owners nor locks as slipway needs them"
	case unix.FUSE_SUPER_MAGIC:
		return "fuse", "most of them cannot carry overlayfs or mapped owners"
	case unix.V9FS_MAGIC:
		return "9p", "it cannot carry overlayfs"
	case unix.ECRYPTFS_SUPER_MAGIC:
		return "ecryptfs", "overlayfs cannot write to it"
	case unix.MSDOS_SUPER_MAGIC:
		return "vfat", "it has no owners and no modes"
	}
	return fmt.Sprintf("file system %#x", uint32(magic)), ""
}

func fsName(st unix.Statfs_t) string {
	name, _ := filesystem(int64(st.Type))
	return name
}

const otherFilesystem = "put the root on ext4, xfs or btrfs with --root; inside a container, mount a volume there"

func checkFilesystem(at string, st unix.Statfs_t) Finding {
	const title = "file system"
	name, trouble := filesystem(int64(st.Type))
	if trouble != "" {
		return warn(title, at+" is on "+name+": "+trouble, otherFilesystem)
	}
	return ok(title, at+" is on "+name)
}

func checkSpace(at string, st unix.Statfs_t) Finding {
	const name = "disk space"
	free := int64(st.Bavail) * st.Bsize
	detail := fmt.Sprintf("%s free at %s", gib(free), at)
	fix := "slipway gc, or choose another disk with --root"
	switch {
	case free < noSpace:
		return fail(name, detail, fix)
	case free < lowSpace:
		return warn(name, detail+"; a few images fill that", fix)
	case st.Files > 0 && st.Ffree < lowInodes: // btrfs counts none
		return warn(name, fmt.Sprintf("%s, but only %d files more can be made", detail, st.Ffree), fix)
	}
	return ok(name, detail)
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
