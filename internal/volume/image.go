package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	defaultSize = 16 << 30
	minSize     = 320 << 20 // mkfs.xfs refuses less than 300 MiB
)

func imagePath(root string) string { return filepath.Join(root, imageFile) }

// createImage makes the image file with its file system and mounts it.
func (s *Store) createImage(ctx context.Context, b Backend, size int64) error {
	if err := loopMissing(); err != nil {
		return err
	}
	if size == 0 {
		size = defaultSize
	}
	size = max(size, minSize)
	mkfs, err := findProgram("mkfs." + b.filesystem())
	if err != nil {
		return err
	}
	image := imagePath(s.root)
	f, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return fmt.Errorf("make the image file: %w", err)
	}
	args := []string{"-q", "-m", "reflink=1", image}
	if b == BtrfsLoop {
		args = []string{"-q", "-m", "single", image} // metadata twice in one file protects from nothing
	}
	if err := run(ctx, mkfs, args...); err != nil {
		return err
	}
	dev, err := attachLoop(image)
	if err != nil {
		return err
	}
	defer closeFile(dev)
	if err := mountImage(dev.Name(), s.data, b); err != nil {
		return err
	}
	if b == BtrfsLoop {
		if err := enableQuotas(s.data); err != nil {
			s.log.Debug().Err(err).Msg("no limits on what a copy of a volume may write; they need Linux 6.7")
		}
	}
	return nil
}

// growXFS makes the file system at dir as large as its device.
func growXFS(dir string, device int64) error {
	fd, err := openDir(dir)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	var geometry struct { // struct xfs_fsop_geom_v1
		blocksize uint32
		_         [6]uint32
		imaxpct   uint32
		_         [80]byte
	}
	const fsGeometry, growData = 0x80705864, 0x4010586e // XFS_IOC_FSGEOMETRY_V1, XFS_IOC_FSGROWFSDATA
	if err := ioctl(fd, fsGeometry, unsafe.Pointer(&geometry)); err != nil {
		return fmt.Errorf("read the geometry of the XFS at %s: %w", dir, err)
	}
	grow := struct { // struct xfs_growfs_data
		newblocks uint64
		imaxpct   uint32
		_         uint32
	}{uint64(device / int64(geometry.blocksize)), geometry.imaxpct, 0}
	if err := ioctl(fd, growData, unsafe.Pointer(&grow)); err != nil {
		return fmt.Errorf("grow the XFS at %s: %w", dir, err)
	}
	return nil
}

// findProgram looks where distributions put programs of the administrator,
// which is not on everybody's PATH.
func findProgram(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"} {
		path := filepath.Join(dir, name)
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s on this machine; install %s", name, map[string]string{"mkfs.btrfs": "btrfs-progs", "mkfs.xfs": "xfsprogs"}[name])
}

func run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}
