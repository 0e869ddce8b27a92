package volume

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	fiTrim    = 0xc0185879 // FITRIM
	btrfsSync = 0x9408     // BTRFS_IOC_SYNC
	slack     = 64 << 20   // not worth a trim
)

// trim gives the host's disk back what was removed in a loop image, when that is
// much: some tenths of a second at most.
func (s *Store) trim() error {
	if !s.backend.loop() {
		return nil
	}
	info, err := os.Stat(imagePath(s.root))
	if err != nil {
		return err
	}
	inner, err := space(s.data)
	if err != nil {
		return err
	}
	if allocated(info)-inner.used < slack+inner.used/8 {
		return nil
	}
	fd, err := openDir(s.data)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	all := struct{ start, length, least uint64 }{length: ^uint64(0)}
	err = ioctl(fd, fiTrim, unsafe.Pointer(&all))
	if errors.Is(err, unix.EOPNOTSUPP) { // the host's file system cannot punch holes
		return nil
	}
	return err
}

// clean wakes the kernel thread that frees deleted subvolumes. It sleeps half a
// minute at a time: a store that is open for shorter would never get rid of them.
func (s *Store) clean() error {
	if s.backend != BtrfsLoop {
		return nil
	}
	fd, err := openDir(s.data)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return ioctl(fd, btrfsSync, nil)
}
