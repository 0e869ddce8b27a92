package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"slipway/pipeline"
)

// maxDockerfiles bounds what init looks at in a large tree.
const maxDockerfiles = 50

func initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a first .ci.yml for the Dockerfiles found in DIR",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := dirArg(args)
			found, err := dockerfiles(dir)
			if err != nil {
				return usagef("look for Dockerfiles: %w", err)
			}
			name := filepath.Join(dir, pipelineFile)
			f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if errors.Is(err, fs.ErrExist) {
				return usagef("%s is there already and stays as it is; `slipway validate %s` checks it", name, dir)
			}
			if err != nil {
				return usagef("write %s: %w", name, err)
			}
			_, err = f.Write(pipeline.Init(found))
			if err = errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("write %s: %w", name, err)
			}
			first := "edit its tests"
			if len(found) == 0 {
				first = "write the Dockerfile that it names (there was none), and its tests"
			}
			fmt.Printf("wrote %s for %d Dockerfile(s); %s, then: slipway run pipeline %s\n", name, len(found), first, dir)
			return nil
		},
	}
}

// dockerfiles lists the Dockerfiles under dir, slash-separated, hidden
// directories and vendored code left out.
func dockerfiles(dir string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != dir && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "vendor") {
				return fs.SkipDir
			}
			return nil
		}
		lower := strings.ToLower(name)
		if lower != "dockerfile" && !strings.HasSuffix(lower, ".dockerfile") && !strings.HasPrefix(lower, "dockerfile.") {
			return nil
		}
		if strings.HasSuffix(lower, ".dockerignore") {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if found = append(found, filepath.ToSlash(rel)); len(found) == maxDockerfiles {
			return fs.SkipAll
		}
		return nil
	})
	return found, err
}
