package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/need"

	"golang.org/x/sys/unix"
)

// postgres runs PostgreSQL on data directories, as a user of a sandbox: the
// directory is bind-mounted with its owners mapped, and the program has the ids
// that its user 999 has outside: here nobody's.
type postgres struct {
	bin    string
	userns *os.File
}

const postgresUser, nobody = 999, 65534

func newPostgres(t *testing.T) postgres {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	must(t, err)
	var missing error
	if len(found) == 0 {
		missing = errors.New("no PostgreSQL server in /usr/lib/postgresql; install postgresql")
	}
	need.Have(t, "postgres", missing)
	need.Root(t)
	ids := []syscall.SysProcIDMap{
		{ContainerID: 0, HostID: 1 << 30, Size: postgresUser},
		{ContainerID: postgresUser, HostID: nobody, Size: 1}, // initdb wants a user that has a name
	}
	holder := exec.Command("sleep", "600")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Pdeathsig: syscall.SIGKILL}
	must(t, holder.Start())
	t.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	userns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid))
	must(t, err)
	t.Cleanup(func() { userns.Close() })
	return postgres{filepath.Dir(found[len(found)-1]), userns}
}

// mount lends a directory of the store to the database.
func (p postgres) mount(t *testing.T, dir string) string {
	t.Helper()
	at, err := os.MkdirTemp("/var/tmp", "slipway-test-*")
	must(t, err)
	must(t, os.Chmod(at, 0o755))
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	must(t, err)
	defer closeFD(fd)
	must(t, unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(p.userns.Fd())}))
	must(t, unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH))
	t.Cleanup(func() {
		must(t, unix.Unmount(at, unix.MNT_DETACH))
		must(t, os.Remove(at))
	})
	return at
}

func (p postgres) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, program), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// single runs statements in PostgreSQL's single-user mode, which starts like the
// server, with recovery after a crash, but needs no port.
func (p postgres) single(t *testing.T, at, sql string) string {
	t.Helper()
	cmd := p.command("postgres", "--single", "-j", "-D", at, "postgres")
	cmd.Stdin = strings.NewReader(sql)
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("ERROR")) {
		t.Fatalf("%s: %v\n%s", sql, err, out)
	}
	return string(out)
}

func (p postgres) rows(t *testing.T, at string) int {
	t.Helper()
	out := p.single(t, at, "SELECT 'rows:' || count(*) FROM r;\n\n")
	_, after, ok := strings.Cut(out, "rows:")
	var n int
	if _, err := fmt.Sscan(strings.Split(after, `"`)[0], &n); !ok || err != nil {
		t.Fatalf("no count in %s", out)
	}
	return n
}

// A real data directory: every copy is the seed's, writing in one changes no
// other, and what is saved of a database that runs recovers like after a power cut.
func TestPostgres(t *testing.T) {
	p := newPostgres(t)
	s := newStore(t, BtrfsLoop)
	first, err := s.Empty(t.Context(), CopyOptions{})
	must(t, err)
	must(t, os.Chown(first.Dir, postgresUser, postgresUser))
	must(t, os.Chmod(first.Dir, 0o700))
	at := p.mount(t, first.Dir)
	if out, err := p.command("initdb", "-N", "--no-locale", "-E", "UTF8", "-D", at).CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p.single(t, at, "CREATE TABLE r(i int);\n\nINSERT INTO r SELECT generate_series(1, 1000);\n\n")
	v, err := s.Seed(t.Context(), "seed", Directory(first.Dir, "."))
	must(t, err)

	second := snapshot(t, s, "seed")
	at = p.mount(t, second.Dir)
	p.single(t, at, "INSERT INTO r SELECT generate_series(1, 234);\n\n")
	if n := p.rows(t, at); n != 1234 {
		t.Errorf("the copy that was written in has %d rows, want 1234", n)
	}
	if n := p.rows(t, p.mount(t, snapshot(t, s, "seed").Dir)); n != 1000 {
		t.Errorf("a new copy has %d rows, want the seed's 1000", n)
	}

	running := p.command("postgres", "--single", "-j", "-D", at, "postgres")
	in, err := running.StdinPipe()
	must(t, err)
	must(t, running.Start())
	for range 50 {
		_, err := in.Write([]byte("INSERT INTO r VALUES (1);\n\n"))
		must(t, err)
	}
	time.Sleep(300 * time.Millisecond) // in the midst of it, or behind: both must recover
	saved, err := second.Save(t.Context(), "running")
	must(t, err)
	must(t, running.Process.Kill())
	_ = running.Wait()
	c := snapshot(t, s, saved.ID)
	must(t, os.Remove(filepath.Join(c.Dir, "postmaster.pid"))) // of the one that still ran
	if n := p.rows(t, p.mount(t, c.Dir)); n < 1234 || n > 1284 {
		t.Errorf("saved while it ran it has %d rows, want 1234 to 1284", n)
	}
	if got := sum(t, filepath.Join(s.volume(v.ID), treeDir)).digest; got != v.Digest {
		t.Error("the seed changed")
	}
}
