package registry

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// place gives the finished work its name in one step: with RENAME_EXCHANGE a
// directory is replaced without a moment in which there is none.
func place(temp, path string, overwrite bool) error {
	flags := uint(unix.RENAME_NOREPLACE)
	if overwrite {
		flags = 0
		if info, err := os.Lstat(path); err == nil && info.IsDir() {
			flags = unix.RENAME_EXCHANGE
		}
	}
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, flags)
	if errors.Is(err, unix.EINVAL) && flags == unix.RENAME_NOREPLACE { // NFS and others know no flags
		if err := refuse(path, false, false); err != nil {
			return err
		}
		err = os.Rename(temp, path)
	}
	if errors.Is(err, fs.ErrExist) {
		return errExists(path)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: temp, New: path, Err: err}
	}
	return nil
}
