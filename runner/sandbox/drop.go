package sandbox

import (
	"io"

	"golang.org/x/sys/unix"
)

// drop closes what a failed close could lose nothing of: what was only read,
// directories, and mounts by file descriptor.
func drop(c io.Closer) { _ = c.Close() }

func dropFD(fd int) { _ = unix.Close(fd) }
