// Package helpers finds the programs that slipway starts: its sandbox helper,
// its agent and runc. A release carries them inside; in development they lie
// beside slipway. It refuses to look along PATH: what runs with slipway's
// privileges is what was built with it.
package helpers

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The programs by name.
const (
	Sandbox = "slipway-sandbox"
	Agent   = "slipway-agent"
	Runc    = "slipway-runc"
)

// Finder knows where to look.
type Finder struct {
	Embedded fs.FS  // the programs of a release; nil in development
	Beside   string // directory of slipway itself
	Root     string // state directory, where embedded programs are unpacked
}

// Find gives the path of a program. An embedded one is unpacked under Root once
// per version, whole or not at all, and checked by content at every start.
func (f Finder) Find(name string) (string, error) {
	if f.Embedded != nil {
		data, err := fs.ReadFile(f.Embedded, name)
		if err == nil {
			return f.unpack(name, data)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("read the embedded %s: %w", name, err)
		}
	}
	path := filepath.Join(f.Beside, name)
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
		return path, nil
	}
	return "", fmt.Errorf("%s is neither inside this slipway nor beside it in %s; run `make build`, which makes both", name, f.Beside)
}

func (f Finder) unpack(name string, data []byte) (string, error) {
	sum := sha256.Sum256(data)
	dir := filepath.Join(f.Root, "bin", hex.EncodeToString(sum[:8]))
	path := filepath.Join(dir, name)
	if have, err := os.ReadFile(path); err == nil && sha256.Sum256(have) == sum {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	tmp, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already when the rename went well
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o755), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	return path, nil
}
