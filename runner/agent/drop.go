package agent

import (
	"io"

	"golang.org/x/sys/unix"
)

// drop closes what a failed close could lose nothing of.
func drop(c io.Closer) { _ = c.Close() }

func dropFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

func dropFDs(fds []int) {
	for _, fd := range fds {
		dropFD(fd)
	}
}
