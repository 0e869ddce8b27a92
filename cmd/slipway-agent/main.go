// Command slipway-agent is PID 1 of a sandbox. It is started by slipway-sandbox
// and is of no use to people.
package main

import (
	"os"

	"slipway/runner/agent"
)

func main() { os.Exit(agent.Run(os.Args)) }
