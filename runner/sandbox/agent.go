package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// sealAgent copies the agent into memory that nobody can write to any more.
// Sandboxes execute it by file descriptor: it has no path in any of them, and
// /proc/1/exe leads to nothing that could be overwritten (CVE-2019-5736). It
// may be executed but not read, which makes the kernel keep the process of it
// untraceable (execve(2), prctl(2) PR_SET_DUMPABLE).
func sealAgent(path string) (*os.File, error) {
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open the agent: %w; run `make build`, which makes it", err)
	}
	if !bytes.Contains(program, []byte(wire.Protocol)) {
		return nil, fmt.Errorf("%s is of another build than slipway; install them together (`make build` makes both)", path)
	}
	return sealed("slipway-agent", bytes.NewReader(program), 0o111)
}

// sealed copies a file to memory, and lets nobody change it after.
func sealed(name string, content io.Reader, mode os.FileMode) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 there is no MFD_EXEC, and no need for it
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memory for %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := io.Copy(f, content); err != nil {
		return nil, fmt.Errorf("copy %s: %w", name, err)
	}
	if err := f.Chmod(mode); err != nil {
		return nil, fmt.Errorf("close %s: %w", name, err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	return f, nil
}
