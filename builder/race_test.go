//go:build race

package builder

// raceDetector is why a few Dockerfiles are left out of race-enabled tests:
// those that look up two images at once. BuildKit 0.34.2 then sets one boolean
// from two goroutines, always to true (frontend/dockerfile/builder/resolvecache.go,
// line 30), and nothing out here can keep it from that.
const raceDetector = true
