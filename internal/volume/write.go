package volume

import (
	"errors"
	"os"
	"path/filepath"
)

// writeFile writes a small file whole or not at all, and surely, by way of a
// temporary one in the same file system.
func writeFile(temporary, path string, data []byte) error {
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = os.Remove(temporary)
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer closeFile(dir)
	return dir.Sync()
}
