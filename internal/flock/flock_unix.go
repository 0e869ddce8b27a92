//go:build unix

package flock

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Try locks an open file, if nobody else has it locked: flock(2).
func Try(f *os.File, how How) (bool, error) {
	op := unix.LOCK_SH
	if how == Exclusive {
		op = unix.LOCK_EX
	}
	err := unix.Flock(int(f.Fd()), op|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return err == nil, err
}
