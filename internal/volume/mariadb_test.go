package volume

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/need"
)

// mariadb runs MariaDB on data directories.
type mariadb struct{ sandboxed }

func newMariaDB(tb testing.TB) mariadb {
	tb.Helper()
	if _, err := os.Stat("/usr/sbin/mariadbd"); err != nil {
		need.Have(tb, "mariadb", fmt.Errorf("%w; install mariadb-server", err))
	}
	return mariadb{newSandboxed(tb)}
}

// server is a MariaDB that runs, reached by a socket file alone.
type server struct {
	mariadb
	cmd    *exec.Cmd
	socket string
	log    string
}

// fresh makes the data directory of a new server.
func (m mariadb) fresh(tb testing.TB, s *Store) *Copy {
	tb.Helper()
	c, err := s.Empty(tb.Context(), CopyOptions{})
	must(tb, errors.Join(err, os.Chown(c.Dir, databaseUser, databaseUser), os.Chmod(c.Dir, 0o700)))
	cmd := m.command("mariadb-install-db", "--no-defaults", "--datadir="+m.mount(tb, c.Dir), "--auth-root-authentication-method=normal", "--skip-test-db")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	return c
}

// start runs a server and returns when it takes connections.
func (m mariadb) start(tb testing.TB, dir string) *server {
	tb.Helper()
	run, err := os.MkdirTemp("", "maria") // short: a socket's path has 107 bytes
	must(tb, errors.Join(err, os.Chmod(run, 0o777)))
	tb.Cleanup(func() { _ = os.RemoveAll(run) })
	s := &server{mariadb: m, socket: filepath.Join(run, "s"), log: filepath.Join(run, "log")}
	s.cmd = m.command("mariadbd", "--no-defaults", "--datadir="+m.mount(tb, dir), "--socket="+s.socket, "--pid-file="+filepath.Join(run, "pid"),
		"--log-error="+s.log, "--skip-networking", "--innodb-buffer-pool-size=64M")
	must(tb, s.cmd.Start())
	tb.Cleanup(func() { _ = s.cmd.Process.Kill(); _ = s.cmd.Wait() })
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("unix", s.socket)
		if err == nil {
			_, err = conn.Read(make([]byte, 1)) // of its greeting
			_ = conn.Close()
		}
		if err == nil {
			return s
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(s.log)
			tb.Fatalf("MariaDB does not come up: %v\n%s", err, log)
		}
	}
}

func (s *server) sql(tb testing.TB, statements string) string {
	tb.Helper()
	cmd := s.command("mariadb", "--no-defaults", "--socket="+s.socket, "--user=root", "--batch", "--skip-column-names")
	cmd.Stdin = strings.NewReader(statements)
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("%s: %v\n%s", statements, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *server) stop(tb testing.TB) {
	tb.Helper()
	must(tb, s.cmd.Process.Signal(syscall.SIGTERM))
	must(tb, s.cmd.Wait())
}

// Two servers run on copies of one seed at once; neither sees the other, and the
// seed stays what it was.
func TestMariaDB(t *testing.T) {
	m := newMariaDB(t)
	first := m.fresh(t, newStore(t, BtrfsLoop))
	db := m.start(t, first.Dir)
	db.sql(t, "CREATE DATABASE shop; USE shop; CREATE TABLE r (i INT PRIMARY KEY, s TEXT); INSERT INTO r SELECT seq, MD5(seq) FROM seq_1_to_1000;")
	db.stop(t)
	for _, b := range []Backend{BtrfsLoop, PlainCopy} {
		t.Run(string(b), func(t *testing.T) {
			s := newStore(t, b)
			v := seed(t, s, "seed", first.Dir)
			one, two := snapshot(t, s, "seed"), snapshot(t, s, "seed")
			a, z := m.start(t, one.Dir), m.start(t, two.Dir)
			a.sql(t, "DELETE FROM shop.r WHERE i > 10;")
			z.sql(t, "USE shop; INSERT INTO r SELECT seq, 'new' FROM seq_1001_to_1234;")
			const count = "SELECT COUNT(*), SUM(s = MD5(i)) FROM shop.r;"
			for db, want := range map[*server]string{a: "10\t10", z: "1234\t1000"} {
				if got := db.sql(t, count); got != want {
					t.Errorf("a copy that was written in has %q, want %q", got, want)
				}
			}
			must(t, a.cmd.Process.Kill())
			if got := m.start(t, snapshot(t, s, "seed").Dir).sql(t, count); got != "1000\t1000" {
				t.Errorf("a new copy has %q, want the seed's 1000", got)
			}
			if got := sum(t, filepath.Join(s.volume(v.ID), treeDir)).digest; got != v.Digest {
				t.Error("the seed changed")
			}
			// What is saved of a server that runs recovers as after a power cut.
			if b == BtrfsLoop {
				_, err := two.Save(t.Context(), "running")
				must(t, err)
				if got := m.start(t, snapshot(t, s, "running").Dir).sql(t, count); got != "1234\t1000" {
					t.Errorf("saved while it ran it has %q", got)
				}
			}
		})
	}
}

// BenchmarkMariaDB is the time until a database of 500 MB answers a query: on a
// copy of a seed, by each backend, and on a copy that cp -a makes on the host.
// Run it with -benchtime 10x.
func BenchmarkMariaDB(b *testing.B) {
	m := newMariaDB(b)
	b.Run("cp -a", func(b *testing.B) { m.benchmark(b, PlainCopy, true) })
	for _, backend := range []Backend{BtrfsLoop, XFSLoop} {
		b.Run(string(backend), func(b *testing.B) { m.benchmark(b, backend, false) })
	}
}

func (m mariadb) benchmark(b *testing.B, backend Backend, cp bool) {
	s := openStore(b, Options{Root: hostFor(b, backend), Backend: backend, Size: 8 << 30})
	first := m.fresh(b, s)
	db := m.start(b, first.Dir)
	db.sql(b, "CREATE DATABASE shop; USE shop; CREATE TABLE r (i INT PRIMARY KEY, s TEXT); INSERT INTO r SELECT seq, REPEAT(MD5(seq), 24) FROM seq_1_to_430000;")
	db.stop(b)
	v := seed(b, s, "seed", first.Dir)
	b.ReportMetric(float64(v.Size)/1e6, "MB")
	must(b, first.Release())
	to := filepath.Join(b.TempDir(), "copy")
	var copying time.Duration
	b.ResetTimer()
	for range b.N {
		began := time.Now()
		dir := to
		var c *Copy
		if cp {
			must(b, exec.Command("cp", "-a", filepath.Join(s.volume(v.ID), treeDir), to).Run())
		} else {
			c = snapshot(b, s, "seed")
			dir = c.Dir
		}
		copying += time.Since(began)
		db := m.start(b, dir)
		if got := db.sql(b, "SELECT COUNT(*) FROM shop.r WHERE i < 100;"); got != "99" {
			b.Fatal(got)
		}
		b.StopTimer()
		must(b, db.cmd.Process.Kill())
		_ = db.cmd.Wait()
		if cp {
			must(b, os.RemoveAll(to))
		} else {
			must(b, c.Release())
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(copying.Microseconds())/1000/float64(b.N), "ms-copying")
	b.ReportMetric(float64(v.Size)/1e6, "MB")
}
