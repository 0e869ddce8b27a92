//go:build !linux

package registry

import "os"

// place gives the finished work its name; a directory that is replaced is gone for
// a moment.
func place(temp, path string, overwrite bool) error {
	if err := refuse(path, overwrite, false); err != nil && !overwrite {
		return err
	}
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return os.Rename(temp, path)
}
