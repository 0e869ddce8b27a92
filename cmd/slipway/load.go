package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"slipway/pipeline"
)

// pipelineFile is the name of the file in a repository.
const pipelineFile = ".ci.yml"

// load reads the pipeline of dir. Problems in it come back as pipeline.Errors,
// with the path as the user gave it.
func load(dir string) (abs string, p *pipeline.Pipeline, err error) {
	name := filepath.Join(dir, pipelineFile)
	data, err := readWithin(dir, pipelineFile) // it may be somebody else's tree, and an error shows the line it is about
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil, usagef("no %s in %s; `slipway init %s` writes a first one, or name another directory", pipelineFile, dir, dir)
	case err != nil:
		return "", nil, usagef("read the pipeline: %w", err)
	}
	if abs, err = filepath.Abs(dir); err != nil {
		return "", nil, usagef("%w", err)
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return "", nil, usagef("%w", err)
	}
	p, err = pipeline.Parse(name, data)
	return abs, p, err
}

// dirArg is the optional DIR argument.
func dirArg(args []string) string {
	if len(args) == 0 {
		return "."
	}
	return args[0]
}

// readWithin reads a file below a directory; no link leads it out.
func readWithin(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	data, err := root.ReadFile(name)
	return data, errors.Join(err, root.Close())
}
