//go:build !linux || client

package main

import (
	"context"
	"runtime"

	"github.com/spf13/cobra"

	"slipway/promote"
)

// Elsewhere than on Linux slipway is the client of a server: sandboxes, and all
// that stands in a root, are Linux's. With -tags client it is that on Linux, too.

func serverOnly(what string) error {
	return usagef("%s needs slipway for Linux, and this is the client for %s; give --server URL (and --server-token FILE), and a server does it", what, runtime.GOOS)
}

func onItsMachine(command string) error {
	return usagef("slipway %s needs slipway for Linux, and this is the client for %s; run it on the server's machine", command, runtime.GOOS)
}

func hasRoot() error { return serverOnly("a run of this machine") }

// commandsHere are there to say so.
func commandsHere(*globals) (all []*cobra.Command) {
	for _, name := range []string{
		"images", "registry", "artifacts", "secrets", "audit", "volumes", "up", "down", "ps", "supervise", "serve",
		"backup", "restore", "repos", "tokens", "schedules", "notify", "gc", "doctor",
	} {
		all = append(all, &cobra.Command{
			Use: name, Short: "(on Linux)", Hidden: true, DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error {
				return onItsMachine(name)
			},
		})
	}
	return all
}

func (g *globals) runPipeline(context.Context, string, runFlags) error {
	return serverOnly("a run on this machine")
}

func (g *globals) shellHere(context.Context, shellFlags, []string, []string) error {
	return serverOnly("a sandbox of this machine")
}

func (g *globals) rerunFrozen(context.Context, string) error {
	return serverOnly("a sandbox of this machine")
}

func (g *globals) followLogs(context.Context, string, []string, int, bool) error {
	return serverOnly("a container of this machine")
}

func (g *globals) withPromoter(context.Context, environmentFlags, func(*promote.Promoter) error) error {
	return serverOnly("an environment of this machine")
}

func (g *globals) beginEnvironments(context.Context, environmentFlags, string) error {
	return onItsMachine("env init")
}

func (g *globals) engineVersions(*cobra.Command) (buildkit, engine string) {
	return "none", "none: it is a client"
}

// stack is what an opened root is made of; there is none.
type stack struct{}
