// It mostly waits for the kernel, and needs no cgroup's word on its cores.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command slipway-sandbox makes sandboxes for slipway, which starts it and
// speaks to it over a socket. It is of no use to people.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/rs/zerolog"

	"slipway/runner/sandbox"
	"slipway/runner/wire"
)

// The main goroutine keeps to the main thread. Sandboxes are started from threads
// that take on a sandbox's cgroup and owner and end with them, and the main
// thread is the one that never ends.
func init() { runtime.LockOSThread() } //nolint:gochecknoinits // main would be too late: the goroutine may have moved

func main() {
	cfg := sandbox.Config{Log: zerolog.New(os.Stderr).Level(zerolog.InfoLevel)}
	flag.StringVar(&cfg.Root, "root", "", "directory of the sandboxes' writable layers")
	flag.StringVar(&cfg.Cgroup, "cgroup", "", "parent of the sandboxes' cgroups, absolute")
	flag.StringVar(&cfg.Agent, "agent", "", "path of slipway-agent")
	flag.Parse()
	if cfg.Root == "" || cfg.Cgroup == "" || cfg.Agent == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "slipway-sandbox is started by slipway; run slipway instead")
		os.Exit(2)
	}
	if err := sandbox.Serve(cfg, os.NewFile(wire.HelperFD, "runner")); err != nil {
		cfg.Log.Error().Err(err).Msg("slipway-sandbox")
		os.Exit(1)
	}
}
