//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"slipway/internal/engine"
	"slipway/internal/store"
)

// artifact is a file that a test left in /out.
type artifact struct {
	Test  string `json:"test"`
	Path  string `json:"path"` // below /out
	Bytes int64  `json:"bytes"`
	from  *os.Root
}

func artifactsCommand(g *globals) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "artifacts RUN[/TEST]",
		Short: "List the files that tests left in /out, or copy them with --to (RUN may be `last`)",
		Long: "Lists the files that the tests of a run left in /out. With --to they are copied: those of\n" +
			"one TEST into the directory itself, else into a directory for each test. A file that is\n" +
			"there already is not replaced.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, done, err := g.artifacts(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer done()
			if to != "" {
				_, _, one := strings.Cut(args[0], "/")
				if err := copyArtifacts(all, to, one); err != nil {
					return err
				}
			}
			return g.printArtifacts(all)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "copy them into this directory, which is made when missing")
	return cmd
}

func (g *globals) printArtifacts(all []artifact) error {
	if g.json {
		return printJSON(os.Stdout, all)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, a := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\n", a.Test, a.Path, bytesText(a.Bytes))
	}
	return t.Flush()
}

// artifacts finds what the last attempts of a run's tests left. done closes what
// they are read from.
func (g *globals) artifacts(ctx context.Context, arg string) (all []artifact, done func(), err error) {
	s := store.ReadOnly(g.root)
	if arg, err = g.recordNamed(ctx, arg); err != nil {
		return nil, nil, err
	}
	name, task, one := strings.Cut(arg, "/")
	run, err := s.Run(name)
	if err != nil {
		return nil, nil, usageError{err}
	}
	tests := testsOf(run)
	if t, ok := tests[task]; one && !ok {
		return nil, nil, usageError{noTest(run, task)}
	} else if one {
		tests = map[string]store.Test{task: t}
	}
	var roots []*os.Root
	done = func() {
		for _, r := range roots {
			_ = r.Close() // only read from
		}
	}
	all = []artifact{}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		dir := outDir(s, run.ID, name, tests[name])
		root, err := os.OpenRoot(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it did not run, or left nothing
		}
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("read what %s left: %w", name, err)
		}
		roots = append(roots, root)
		found, err := filesIn(root, name)
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("read what %s left: %w", name, err)
		}
		all = append(all, found...)
	}
	return all, done, nil
}

// outDir is where the last attempt of a test left its files; of one whose result
// was reused, that of the run which ran it.
func outDir(s *store.Store, run, task string, t store.Test) string {
	if t.ReusedFrom != "" {
		run = t.ReusedFrom
		if past, err := s.Run(run); err == nil {
			t = testsOf(past)[task]
		}
	}
	dir := filepath.Join(s.RunDir(run), engine.TaskDir(task))
	if t.Attempts > 1 {
		dir = filepath.Join(dir, fmt.Sprint("attempt-", t.Attempts))
	}
	return filepath.Join(dir, "out")
}

func filesIn(root *os.Root, test string) (found []artifact, err error) {
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() { // nothing else was kept
			return err
		}
		info, err := d.Info()
		if err == nil {
			found = append(found, artifact{test, name, info.Size(), root})
		}
		return err
	})
	return found, err
}

// copyArtifacts writes below dir only, whatever is there already.
func copyArtifacts(all []artifact, dir string, flat bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return usagef("--to: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return usagef("--to: %w", err)
	}
	defer root.Close()
	for _, a := range all {
		name := a.Path
		if !flat {
			name = path.Join(engine.TaskDir(a.Test), name)
		}
		if err := copyArtifact(a, root, name); errors.Is(err, fs.ErrExist) {
			return usagef("%s is there already; give --to another directory, or remove it", filepath.Join(dir, name))
		} else if err != nil {
			return fmt.Errorf("copy %s of %s: %w", a.Path, a.Test, err)
		}
	}
	return nil
}

func copyArtifact(a artifact, to *os.Root, name string) (err error) {
	in, err := a.from.Open(a.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := to.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
