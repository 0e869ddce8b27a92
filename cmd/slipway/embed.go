//go:build embed

package main

import (
	"embed"
	"io/fs"
)

//go:embed helpers
var helperFiles embed.FS

// embedded holds the helper programs of a release.
func embedded() fs.FS {
	sub, err := fs.Sub(helperFiles, "helpers")
	if err != nil {
		panic(err) // the directory is part of the build
	}
	return sub
}
