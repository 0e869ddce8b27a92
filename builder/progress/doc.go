// Package progress shows a running pipeline: builds and tests in one display,
// live with colours on a terminal, line by line when piped. The drawing is
// BuildKit's own, so it looks as BuildKit users know it.
//
// It decides nothing and remembers nothing: it refuses to be the log of a run
// (the engine records that), to read the environment, and to mask secrets (the
// writer it is given does).
package progress
