//go:build linux && !client

package main

import "github.com/spf13/cobra"

// hasRoot says that this slipway may have a root, on this machine.
func hasRoot() error { return nil }

// commandsHere are those that need a root on this machine, and so Linux.
func commandsHere(g *globals) []*cobra.Command {
	return []*cobra.Command{
		imagesCommand(g),
		registryCommand(g),
		artifactsCommand(g),
		secretsCommand(g),
		auditCommand(g),
		volumesCommand(g),
		upCommand(g),
		downCommand(g),
		psCommand(g),
		superviseCommand(g),
		serveCommand(g),
		backupCommand(g),
		restoreCommand(g),
		reposCommand(g),
		tokensCommand(g),
		schedulesCommand(g),
		notifyCommand(g),
		gcCommand(g),
		doctorCommand(g),
	}
}
