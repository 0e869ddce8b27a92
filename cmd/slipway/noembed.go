//go:build !embed

package main

import "io/fs"

// embedded is nil in development: the helper programs lie beside slipway.
func embedded() fs.FS { return nil }
