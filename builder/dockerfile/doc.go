// Package dockerfile knows what a Dockerfile asks for without building it:
// which images it stands on, which privileges it wants, and a key per step that
// changes exactly when BuildKit would run that step again.
//
// It runs BuildKit's own Dockerfile frontend against the directory and the
// caller's records, so it cannot drift from what a build does. It refuses to
// touch the network, to write anything, and to guess: what cannot be known
// without building is said to be unknown, with the reason.
package dockerfile
