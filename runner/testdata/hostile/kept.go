package main

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// kept is what is left in /out for a careless copier. They succeed when they
// are made; whether they did harm is seen outside.
func kept() map[string]attempt {
	return map[string]attempt{
		"out-links": func(args []string) error {
			return errors.Join(os.Symlink(args[0], "/out/report.xml"), os.Symlink("/", "/out/root"), os.Symlink("../../../../../../..", "/out/up"),
				unix.Mkfifo("/out/fifo", 0o644))
		},
		"out-nest": func(args []string) error {
			n, _ := strconv.Atoi(args[0])
			at, err := unix.Open("/out", unix.O_PATH|unix.O_DIRECTORY, 0)
			for range n {
				if err != nil {
					break
				}
				if err = unix.Mkdirat(at, "d", 0o755); err != nil {
					break
				}
				var next int
				next, err = unix.Openat(at, "d", unix.O_PATH|unix.O_DIRECTORY, 0)
				_ = unix.Close(at)
				at = next
			}
			return err
		},
	}
}
