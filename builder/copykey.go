package builder

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// copyKey names the copies of the contexts that BuildKit keeps between builds.
// Dockerfiles of one directory may ignore different files of it.
//
// BuildKit updates such a copy in place and takes note of changed files, but not
// of a changed directory (fsutil's DiskWriter returns without telling the
// content hash). With the directories in the key it takes a new copy then.
func copyKey(ctx context.Context, root string, in *inputs) (string, error) {
	parts := []string{root, in.dockerfile}
	for _, name := range slices.Sorted(maps.Keys(in.mounts)) {
		sum, err := directories(ctx, in.mounts[name], in.dockerfile)
		if err != nil {
			return "", err
		}
		parts = append(parts, name, sum.String())
	}
	return digest.FromString(strings.Join(parts, "\x00")).Encoded(), nil
}

// directories stands for the modes and attributes of every directory in files
// that is not ignored.
func directories(ctx context.Context, files fsutil.FS, dockerfile string) (digest.Digest, error) {
	files, err := fsutil.NewFilterFS(files, &fsutil.FilterOpt{ExcludePatterns: ignored(files, dockerfile)})
	if err != nil {
		return "", err
	}
	sum := digest.Canonical.Digester()
	err = files.Walk(ctx, "/", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(sum.Hash(), "%q %o\n", path, fi.Mode())
		if st, ok := fi.Sys().(*types.Stat); ok {
			for _, name := range slices.Sorted(maps.Keys(st.Xattrs)) {
				fmt.Fprintf(sum.Hash(), "%q=%q\n", name, st.Xattrs[name])
			}
		}
		return nil
	})
	return sum.Digest(), err
}

// ignored reads the ignore file that BuildKit will read. A bad one ignores
// nothing here: BuildKit says what is wrong with it.
func ignored(files fsutil.FS, dockerfile string) []string {
	for _, name := range []string{dockerfile + ".dockerignore", ".dockerignore"} {
		f, err := files.Open(name)
		if err != nil {
			continue
		}
		patterns, err := ignorefile.ReadAll(f)
		if f.Close() != nil || err != nil {
			return nil
		}
		return patterns
	}
	return nil
}
