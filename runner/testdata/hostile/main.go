// Command hostile tries to break out of the sandbox it runs in, or to take more
// than its share, one named attempt at a time. It says whether it succeeded and
// exits with 0 if it did. It is harmless where it succeeds: what it could destroy
// it only opens, what it could change it sets to what it was, and its bombs stop
// a little above the limits that the suite sets.
package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// attempt returns nil where it succeeded, or what stopped it.
type attempt func(args []string) error

func main() {
	if len(os.Args) < 2 {
		os.Exit(2)
	}
	for _, group := range []map[string]attempt{kernel(), agent(), devices(), host(), bombs(), kept()} {
		try := group[os.Args[1]]
		if try == nil {
			continue
		}
		err := try(os.Args[2:])
		var errno unix.Errno
		switch {
		case err == nil:
			fmt.Println("SUCCEEDED")
			os.Exit(0)
		case errors.As(err, &errno):
			fmt.Printf("stopped: %s (%s)\n", err, unix.ErrnoName(errno))
		default:
			fmt.Printf("stopped: %s\n", err)
		}
		os.Exit(1)
	}
	fmt.Println("there is no attempt", os.Args[1])
	os.Exit(2)
}

// call makes a bare system call. past are the errors that come after the check
// of permissions, so that the attempt counts as a success without its damage.
func call(past []unix.Errno, number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, e := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if e == 0 {
		return nil
	}
	for _, p := range past {
		if e == p {
			return nil
		}
	}
	return e
}

// openFor opens a file and lets it go.
func openFor(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

var errEmpty = errors.New("it is empty")

// readable reports whether a file gives at least one byte.
func readable(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := unix.Read(fd, make([]byte, 64))
	if err == nil && n == 0 {
		err = errEmpty
	}
	return err
}

// rewrite writes to a file what it holds.
func rewrite(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.Write(fd, content)
	return err
}
