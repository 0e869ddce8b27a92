package sandbox

import (
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // joins the namespaces in C, before Go starts its threads
)

// Init finishes a sandbox from the inside and becomes its agent. It never returns.
func Init() { libcontainer.Init() }
