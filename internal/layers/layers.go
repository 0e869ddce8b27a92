// Package layers keeps the file system of an image for as long as something runs
// on it. The build cache may be emptied, or lost with the machine, at any time;
// what production runs on may not. Files are hard links to those of the build
// cache where that is on the same file system: keeping an image takes
// milliseconds and no space until the cache lets it go.
//
// It refuses to keep half of an image: a directory has its final name only when
// all of it is on the disk. It never writes to a file it has linked, and nobody
// else may.
package layers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"slipway/pipeline"
)

// Kept is one image's file system.
type Kept struct {
	Lowers []string // directories, topmost first, as overlayfs wants them; never to be written to
	Config ocispec.ImageConfig
	// Healthcheck is that of the Dockerfile, which is Docker's and no part of OCI's; nil: none.
	Healthcheck *pipeline.Healthcheck
}

const (
	configName = "config.json"
	newPrefix  = ".new-"
)

// Keep makes sure that dir holds the layers of exactly that digest. lend is asked
// for them, topmost first, only where they are not there yet; what it lends is
// given back before Keep returns.
func Keep(ctx context.Context, dir string, d digest.Digest, lend func(context.Context) (Kept, func() error, error)) (Kept, error) {
	if k, err := Find(dir, d); err == nil {
		return k, nil
	}
	lent, release, err := lend(ctx)
	if err != nil {
		return Kept{}, err
	}
	err = keep(ctx, dir, d, lent)
	if release != nil {
		err = errors.Join(err, release())
	}
	if err != nil {
		return Kept{}, fmt.Errorf("keep the layers of %s: %w", d, err)
	}
	return Find(dir, d)
}

// Find gives the layers of a digest that Keep has kept; fs.ErrNotExist where it has not.
func Find(dir string, d digest.Digest) (Kept, error) {
	if err := d.Validate(); err != nil {
		return Kept{}, fmt.Errorf("layers of %q: %w", d, err)
	}
	at := filepath.Join(dir, d.Encoded())
	data, err := os.ReadFile(filepath.Join(at, configName))
	if err != nil {
		return Kept{}, err
	}
	var said record
	if err := json.Unmarshal(data, &said); err != nil || said.Layers < 1 {
		return Kept{}, fmt.Errorf("layers of %s: %s is damaged (%w); remove %s, it is made anew", d, configName, errors.Join(err, errNoLayers), at)
	}
	k := Kept{Config: said.Config, Healthcheck: said.Healthcheck}
	for i := range said.Layers {
		k.Lowers = append(k.Lowers, filepath.Join(at, strconv.Itoa(i)))
	}
	return k, nil
}

// record is what Find reads.
type record struct {
	Layers      int                   `json:"layers"`
	Config      ocispec.ImageConfig   `json:"config"`
	Healthcheck *pipeline.Healthcheck `json:"healthcheck,omitempty"`
}

var errNoLayers = errors.New("it names no layer")

func keep(ctx context.Context, dir string, d digest.Digest, k Kept) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	place, err := os.MkdirTemp(dir, newPrefix)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(place) }() // what has no final name; the next start looks again
	// The ids of a sandbox walk through here.
	if err := os.Chmod(place, 0o711); err != nil {
		return err
	}
	for i, from := range k.Lowers {
		if err := linkTree(ctx, from, filepath.Join(place, strconv.Itoa(i))); err != nil {
			return err
		}
	}
	data, err := json.Marshal(record{len(k.Lowers), k.Config, k.Healthcheck})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(place, configName), data, 0o600); err != nil {
		return err
	}
	if err := syncFileSystem(place); err != nil {
		return err
	}
	final := filepath.Join(dir, d.Encoded())
	if err := os.Rename(place, final); errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return nil // another was quicker
	} else if err != nil {
		return err
	}
	return syncDir(dir)
}

// Sweep removes what is kept of digests that are not among those in use, and
// what a crash left half made, unless it is younger than grace: somebody may just
// have kept it, to use it next.
func Sweep(dir string, inUse []digest.Digest, grace time.Duration) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < grace {
			continue
		}
		if !slices.ContainsFunc(inUse, func(d digest.Digest) bool { return d.Encoded() == e.Name() }) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(append(errs, err)...)
}

// syncFileSystem waits until all that was written below dir, the build's own
// files included, is on the disk: a link to a file that a power cut empties is
// worth nothing.
func syncFileSystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
