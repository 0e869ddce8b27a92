//go:build linux && !client

package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// contents gives what each path below a directory is: its mode, and the digest of
// a file or the target of a link.
func contents(dir string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := ""
		switch info.Mode().Type() {
		case 0:
			what, err = digestOf(path)
		case fs.ModeSymlink:
			what, err = os.Readlink(path)
		}
		rel, _ := filepath.Rel(dir, path) // path is below dir
		all[rel] = fmt.Sprint(info.Mode(), " ", what)
		return err
	})
	return all, err
}

func digestOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
