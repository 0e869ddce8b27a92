package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// Fixtures gives the digest of the files in dir that a test and its services
// see: directories they mount, or whose copy they mount as a volume, and files of
// variables. Names, modes, contents and link targets count, times and owners do
// not. Seeds from images and artifacts are known by digests that stand elsewhere
// in the key.
func Fixtures(dir string) func(context.Context, pipeline.Plan, pipeline.Task) (digest.Digest, error) {
	return func(ctx context.Context, plan pipeline.Plan, task pipeline.Task) (digest.Digest, error) {
		h := sha256.New()
		if err := hashMounts(ctx, h, dir, task.Test.Volumes, plan.Volumes); err != nil {
			return "", fmt.Errorf("test %s: %w", task.Test.Name, err)
		}
		services := plan.ServicesOf(task)
		for _, key := range slices.Sorted(maps.Keys(services)) {
			s := services[key]
			fmt.Fprintf(h, "service %q\n", key)
			err := hashMounts(ctx, h, dir, s.Volumes, plan.Volumes)
			for _, name := range s.EnvFile {
				err = errors.Join(err, hashTree(ctx, h, filepath.Join(dir, filepath.FromSlash(name))))
			}
			if err != nil {
				return "", fmt.Errorf("service %s: %w", s.Name, err)
			}
		}
		return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.Sum(nil))), nil
	}
}

func hashMounts(ctx context.Context, h hash.Hash, dir string, volumes []pipeline.Volume, seeds map[string]pipeline.VolumeSeed) error {
	for _, v := range volumes {
		fmt.Fprintf(h, "mount %q %v\n", v.Target, v.ReadOnly)
		source := v.Source
		if !Bind(v) {
			if source = seeds[v.Source].From; !strings.HasPrefix(source, "./") {
				continue
			}
		}
		if err := hashTree(ctx, h, filepath.Join(dir, filepath.FromSlash(source))); err != nil {
			return fmt.Errorf("read the volume %s: %w", v.Source, err)
		}
	}
	return nil
}

// Bind reports whether a volume is a directory of the repository.
func Bind(v pipeline.Volume) bool {
	return v.Source == "." || strings.HasPrefix(v.Source, "./") || strings.HasPrefix(v.Source, "../") || strings.HasPrefix(v.Source, "/")
}

// seesFiles reports whether files of the repository are seen as they are while a
// test runs, by it or a service of it.
func seesFiles(plan pipeline.Plan, task pipeline.Task) bool {
	if slices.ContainsFunc(task.Test.Volumes, Bind) {
		return true
	}
	for _, s := range plan.ServicesOf(task) {
		if len(s.EnvFile) > 0 || slices.ContainsFunc(s.Volumes, Bind) {
			return true
		}
	}
	return false
}

func hashTree(ctx context.Context, h hash.Hash, top string) error {
	return filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%q %v\n", filepath.ToSlash(rel), info.Mode())
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "-> %q\n", target)
		case info.Mode().IsRegular():
			fmt.Fprintf(h, "%d\n", info.Size())
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(h, f)
			return err
		}
		return nil
	})
}
