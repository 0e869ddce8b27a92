package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// writeFile makes path from what write puts into a temporary file beside it, so
// that path is never half written.
func writeFile(path string, overwrite bool, write func(*os.File) error) (err error) {
	if err := refuse(path, overwrite, false); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), tempName(path))
	if err != nil {
		return explainDir(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(explainTarget(err), remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return place(f.Name(), path, overwrite)
}

// writeDir does for a directory what writeFile does for a file.
func writeDir(path string, overwrite bool, write func(dir string) error) (err error) {
	if err := refuse(path, overwrite, true); err != nil {
		return err
	}
	path = filepath.Clean(path)
	dir, err := os.MkdirTemp(filepath.Dir(path), tempName(path))
	if err != nil {
		return explainDir(err)
	}
	defer func() {
		// After an exchange the old directory has the temporary name.
		err = errors.Join(explainTarget(err), os.RemoveAll(dir))
	}()
	if err := errors.Join(write(dir), os.Chmod(dir, 0o755)); err != nil {
		return err
	}
	return place(dir, path, overwrite)
}

// tempName is a pattern beside path: a rename does not cross file systems.
func tempName(path string) string { return "." + filepath.Base(path) + ".tmp-*" }

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func errExists(path string) error {
	return fmt.Errorf("%s exists already; remove it, choose another name, or pass --overwrite", path)
}

// refuse stops early what place would not do, before any work. A directory is
// only ever replaced where it is a layout or empty.
func refuse(path string, overwrite, dir bool) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return explainTarget(err)
	}
	switch {
	case !overwrite:
		return errExists(path)
	case !dir && !info.Mode().IsRegular(), dir && !info.IsDir():
		return fmt.Errorf("%s is of another kind than what would be written there; remove it or choose another name", path)
	case !dir:
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return explainTarget(err)
	}
	if _, err := os.Stat(filepath.Join(path, ocispec.ImageLayoutFile)); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s is a directory with other things in it; choose another name", path)
	}
	return nil
}

func explainTarget(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w; free space there or write to another disk", err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; choose a place you may write to", err)
	}
	return err
}

// explainDir is explainTarget for making something new in a directory.
func explainDir(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; make the directory first", err)
	}
	return explainTarget(err)
}
