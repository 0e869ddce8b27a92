// Package supervise keeps containers running that nobody waits for: the images
// of an environment that slipway delivers to this machine, and development sets
// (`slipway up`). It is a process of its own, one for each root, which outlives
// the command and the server that asked for a container: stopping, killing or
// replacing those leaves production answering.
//
// It refuses to build, to pull and to decide: it is given exact digests with the
// directories of their layers, and never reads a tag or a pipeline. It refuses to
// replace what runs by something that does not get healthy. It stores no secret:
// it keeps where each is found, and asks there whenever a container starts.
package supervise
