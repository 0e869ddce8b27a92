package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/need"
)

// postgres runs PostgreSQL on data directories.
type postgres struct {
	sandboxed
	bin string
}

func newPostgres(t *testing.T) postgres {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	must(t, err)
	var missing error
	if len(found) == 0 {
		missing = errors.New("no PostgreSQL server in /usr/lib/postgresql; install postgresql")
	}
	need.Have(t, "postgres", missing)
	return postgres{newSandboxed(t), filepath.Dir(found[len(found)-1])}
}

func (p postgres) command(program string, args ...string) *exec.Cmd {
	return p.sandboxed.command(filepath.Join(p.bin, program), args...)
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
	must(t, os.Chown(first.Dir, databaseUser, databaseUser))
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
