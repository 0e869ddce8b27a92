package agent

import (
	"io"

	"golang.org/x/sys/unix"
)

// drop closes what a failed close could lose nothing of.
func drop(c io.Closer) { _ = c.Close() }

func dropFD(fd int) { _ = unix.Close(fd) }
