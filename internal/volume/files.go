package volume

import (
	"context"
	"os"
)

// files keeps every tree in a plain directory: a copy has its own files, which
// share blocks with the original where the file system can (reflinks, some
// microseconds a file), or are copied whole.
type files struct{}

func (files) create(path string) error { return os.Mkdir(path, 0o700) }

func (f files) snapshot(ctx context.Context, from, to string) error {
	if err := f.create(to); err != nil {
		return err
	}
	src, err := openDir(from)
	if err != nil {
		return err
	}
	defer closeFD(src)
	dst, err := openDir(to)
	if err != nil {
		return err
	}
	defer closeFD(dst)
	return (&copier{skipSockets: true}).copyTree(ctx, src, dst)
}

// seal does nothing: a plain directory has no lock against root.
func (files) seal(string) error { return nil }

func (files) remove(path string) error { return os.RemoveAll(path) }

// limit: quotas of ext4 and XFS need a mount option of the host's file system.
func (files) limit(string, int64) (bool, error) { return false, nil }
