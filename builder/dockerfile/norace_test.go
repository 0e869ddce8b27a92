//go:build !race

package dockerfile_test

// raceDetector: see race_test.go.
const raceDetector = false
