//go:build unix

package promote

import (
	"os/exec"
	"syscall"
)

// endWhole has a command end with all processes that it started.
func endWhole(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
