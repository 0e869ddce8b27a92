//go:build !race

package builder

// raceDetector: see race_test.go.
const raceDetector = false
