//go:build race

package dockerfile_test

// raceDetector is why a race-enabled test leaves two things to the others, in
// which BuildKit 0.34.2 races with itself: looking up two images at once
// (frontend/dockerfile/builder/resolvecache.go sets a boolean, always to true)
// and ending a build early (solver/internal/pipe).
const raceDetector = true
