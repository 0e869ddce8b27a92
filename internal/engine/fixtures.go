package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// Fixtures gives the digest of the directories that tests of the pipeline in
// dir mount, or whose copy they mount as a volume: names, modes, contents and
// link targets, not times and owners. Seeds from images and artifacts are known
// by digests that stand elsewhere in the key.
func Fixtures(dir string, seeds map[string]pipeline.VolumeSeed) func(context.Context, pipeline.Test) (digest.Digest, error) {
	return func(ctx context.Context, t pipeline.Test) (digest.Digest, error) {
		h := sha256.New()
		for _, v := range t.Volumes {
			fmt.Fprintf(h, "mount %q %v\n", v.Target, v.ReadOnly)
			source := v.Source
			if !Bind(v) {
				if source = seeds[v.Source].From; !strings.HasPrefix(source, "./") {
					continue
				}
			}
			if err := hashTree(ctx, h, filepath.Join(dir, filepath.FromSlash(source))); err != nil {
				return "", fmt.Errorf("read the volume %s of test %s: %w", v.Source, t.Name, err)
			}
		}
		return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.Sum(nil))), nil
	}
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
