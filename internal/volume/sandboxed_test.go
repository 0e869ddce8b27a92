package volume

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"slipway/internal/need"

	"golang.org/x/sys/unix"
)

// sandboxed runs a database as a user of a sandbox: the data directory is
// bind-mounted with its owners mapped, and the program has the ids that its user
// 999 has outside: here nobody's.
type sandboxed struct{ userns *os.File }

const databaseUser, nobody = 999, 65534

func newSandboxed(tb testing.TB) sandboxed {
	tb.Helper()
	need.Root(tb)
	ids := []syscall.SysProcIDMap{
		{ContainerID: 0, HostID: 1 << 30, Size: databaseUser},
		{ContainerID: databaseUser, HostID: nobody, Size: 1}, // initdb wants a user that has a name
	}
	holder := exec.Command("sleep", "600")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Pdeathsig: syscall.SIGKILL}
	must(tb, holder.Start())
	tb.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	userns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid))
	must(tb, err)
	tb.Cleanup(func() { userns.Close() })
	return sandboxed{userns}
}

// mount lends a directory of the store to the database.
func (s sandboxed) mount(tb testing.TB, dir string) string {
	tb.Helper()
	at, err := os.MkdirTemp("/var/tmp", "slipway-test-*")
	must(tb, err)
	must(tb, os.Chmod(at, 0o755))
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	must(tb, err)
	defer closeFD(fd)
	must(tb, unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(s.userns.Fd())}))
	must(tb, unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH))
	tb.Cleanup(func() {
		must(tb, unix.Unmount(at, unix.MNT_DETACH))
		must(tb, os.Remove(at))
	})
	return at
}

func (sandboxed) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	return cmd
}
