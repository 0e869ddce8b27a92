// The runtime would look for a limit of its cgroup, and keep files of the host
// open for it, in every sandbox.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command slipway-agent is PID 1 of a sandbox. It is started by slipway-sandbox
// and is of no use to people.
package main

import (
	"os"
	"runtime"

	"slipway/runner/agent"
)

// The main goroutine keeps to the main thread: what is said to one thread only,
// such as which capabilities its children can ever have, is said to that one,
// and it starts all of them.
func init() { runtime.LockOSThread() } //nolint:gochecknoinits // main would be too late: the goroutine may have moved

func main() { os.Exit(agent.Run(os.Args)) }
