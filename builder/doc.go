// Package builder turns Dockerfiles into images and lends out what it built.
//
// BuildKit runs inside this process by default; the same code drives a remote
// buildkitd, whose images are streamed back. Everything it keeps (blobs,
// snapshots, build cache, images by name) lives under one directory, which one
// process holds at a time.
//
// It refuses to let a build step see the host: a step runs in its own user
// namespace, on a network it was lent or on none, within a pids limit, and a
// Dockerfile that asks for more is a *BuildError. It refuses to fetch frontends
// (`# syntax=` lines are ignored) and to find an image by a name that another
// project gave: an imported image and a pipeline's own image reach a build by
// digest only. It runs no tests and pushes nothing.
package builder
