package ledger_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"slipway/internal/need"
)

// cluster is a PostgreSQL server of this test program's own: in a temporary
// directory, on a socket in it, as a user without rights.
type cluster struct {
	once      sync.Once
	bin, dir  string
	err       error
	databases int
}

var server cluster

// nobody runs PostgreSQL, which refuses to be root.
const nobody = 65534

func (c *cluster) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, program), args...)
	cmd.Dir = c.dir
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

func (c *cluster) run(program string, args ...string) error {
	out := &bytes.Buffer{}
	cmd := c.command(program, args...)
	if program == "pg_ctl" { // the server it starts would hold a pipe open
		log, err := os.Create(filepath.Join(c.dir, "pg_ctl.log"))
		if err != nil {
			return err
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	} else {
		cmd.Stdout, cmd.Stderr = out, out
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

func (c *cluster) start() {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err == nil && len(found) == 0 {
		err = errors.New("no PostgreSQL server in /usr/lib/postgresql; install postgresql")
	}
	if c.err = err; err != nil {
		return
	}
	c.bin = filepath.Dir(found[len(found)-1])
	dir, err := os.MkdirTemp("/tmp", "slipway-pg-") // short: a socket's path has 107 bytes
	if err == nil {
		c.dir = dir
		err = os.Chown(dir, nobody, nobody)
	}
	if os.Geteuid() != 0 {
		err = nil
	}
	if err == nil {
		err = c.run("initdb", "-N", "--no-locale", "-E", "UTF8", "-A", "trust", "-U", "slipway", "-D", c.data())
	}
	if err == nil {
		err = c.run("pg_ctl", "-w", "-D", c.data(), "-l", filepath.Join(dir, "log"), "-o", "-c fsync=off -c listen_addresses='' -c unix_socket_directories='"+dir+"'", "start")
	}
	c.err = err
}

func (c *cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *cluster) stop() error {
	if c.dir == "" {
		return nil
	}
	return errors.Join(c.run("pg_ctl", "-w", "-m", "immediate", "-D", c.data(), "stop"), os.RemoveAll(c.dir))
}

func (c *cluster) address(database string) string {
	return "postgres://slipway@/" + database + "?host=" + c.dir
}

// newDatabase gives the address of an empty database.
func (c *cluster) newDatabase(t testing.TB) string {
	t.Helper()
	c.once.Do(c.start)
	need.Have(t, "postgres", c.err)
	c.databases++
	name := "ledger" + strconv.Itoa(c.databases)
	db, err := sql.Open("pgx", c.address("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	return c.address(name)
}
