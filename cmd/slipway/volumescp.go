//go:build linux && !client

package main

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"slipway/internal/volume"
)

// isPath tells a path of the host from a volume: it says so, as in Compose.
func isPath(s string) bool {
	return s == "." || s == ".." || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") || filepath.IsAbs(s)
}

// cutVolumePath reads VOLUME:/path. Names of volumes hold no colon but for an
// ID's "sha256:"; those of kept copies may, so the last one counts.
func cutVolumePath(s string) (ref, inside string, ok bool) {
	if isPath(s) {
		return "", "", false
	}
	if strings.HasSuffix(s, ":") {
		return s[:len(s)-1], "/", true
	}
	i := strings.LastIndex(s, ":/")
	if i <= 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func (g *globals) copyVolume(ctx context.Context, s *volume.Store, args []string) error {
	from, fromPath, out := cutVolumePath(args[0])
	to, toPath, in := cutVolumePath(args[1])
	switch {
	case out && in:
		return usagef("cp: copy to a directory first; one of the two is a path of this machine")
	case out:
		return pathFault(s.CopyOut(ctx, from, fromPath, intoDirectory(args[1], from, fromPath)))
	case in:
		v, err := copyIn(ctx, s, args[0], to, toPath)
		if err != nil {
			return pathFault(err)
		}
		return g.tellVolume("cp", to, v, nil)
	}
	return usagef("cp: one of %s and %s must be VOLUME:/path, such as testdata:/dump.sql", args[0], args[1])
}

// pathFault marks an error of a path as the user's.
func pathFault(err error) error {
	for _, wrong := range []error{os.ErrNotExist, os.ErrExist, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP} {
		if errors.Is(err, wrong) {
			return usageError{err}
		}
	}
	return err
}

// intoDirectory is where a copy lands: at to, or in it where to is a directory.
func intoDirectory(to, ref, inside string) string {
	if info, err := os.Stat(to); err != nil || !info.IsDir() {
		return filepath.Clean(to)
	}
	name := path.Base(path.Clean("/" + inside))
	if name == "/" {
		name = path.Base(ref)
	}
	return filepath.Join(to, name)
}

func copyIn(ctx context.Context, s *volume.Store, from, name, inside string) (volume.Volume, error) {
	info, err := os.Stat(from)
	if err != nil {
		return volume.Volume{}, usageError{err}
	}
	if strings.HasSuffix(inside, "/") && !info.IsDir() {
		inside += filepath.Base(filepath.Clean(from))
	}
	if _, err := s.Find(name); errors.Is(err, volume.ErrNotFound) {
		if info.IsDir() && path.Clean(inside) == "/" {
			return s.Seed(ctx, name, volume.Directory(from, "."))
		}
		c, err := s.Empty(ctx, volume.CopyOptions{})
		if err != nil {
			return volume.Volume{}, err
		}
		_, err = c.Save(ctx, name)
		if err := errors.Join(err, c.Release()); err != nil {
			return volume.Volume{}, err
		}
	}
	return s.CopyIn(ctx, name, inside, from)
}
