package need

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// Postgres is a PostgreSQL server of a test program's own: in a temporary
// directory, on a socket in it, as a user without rights. The zero value starts
// when the first database is asked for; whoever has it stops it.
type Postgres struct {
	// Sync has commits reach the disk, for what measures them or kills the server.
	Sync bool

	once      sync.Once
	bin, dir  string
	err       error
	databases int
}

// nobody runs PostgreSQL, which refuses to be root.
const nobody = 65534

func (p *Postgres) run(program string, args ...string) error {
	cmd := exec.Command(filepath.Join(p.bin, program), args...)
	cmd.Dir = p.dir
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out := &bytes.Buffer{}
	if program == "pg_ctl" { // the server it starts would hold a pipe open
		log, err := os.Create(filepath.Join(p.dir, "pg_ctl.log"))
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

func (p *Postgres) make() {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err == nil && len(found) == 0 {
		err = errors.New("no PostgreSQL server in /usr/lib/postgresql; install postgresql")
	}
	if p.err = err; err != nil {
		return
	}
	p.bin = filepath.Dir(found[len(found)-1])
	if p.dir, p.err = os.MkdirTemp("/tmp", "slipway-pg-"); p.err != nil { // short: a socket's path has 107 bytes
		return
	}
	if os.Geteuid() == 0 {
		p.err = os.Chown(p.dir, nobody, nobody)
	}
	if p.err == nil {
		p.err = p.run("initdb", "-N", "--no-locale", "-E", "UTF8", "-A", "trust", "-U", "slipway", "-D", p.data())
	}
	if p.err == nil {
		p.err = p.Start()
	}
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// Start starts the server once more that Kill has ended.
func (p *Postgres) Start() error {
	fsync := "off"
	if p.Sync {
		fsync = "on"
	}
	return p.run("pg_ctl", "-w", "-D", p.data(), "-l", filepath.Join(p.dir, "log"), "-o", "-c fsync="+fsync+" -c listen_addresses='' -c unix_socket_directories='"+p.dir+"'", "start")
}

// Kill ends the server as a crash does.
func (p *Postgres) Kill() error {
	return p.run("pg_ctl", "-w", "-m", "immediate", "-D", p.data(), "stop")
}

// Stop ends the server and removes what it had.
func (p *Postgres) Stop() error {
	if p.dir == "" {
		return nil
	}
	return errors.Join(p.Kill(), os.RemoveAll(p.dir))
}

// Database gives the address of an empty database.
func (p *Postgres) Database(tb testing.TB) string {
	tb.Helper()
	p.once.Do(p.make)
	Have(tb, "postgres", p.err)
	p.databases++
	name := "slipway" + strconv.Itoa(p.databases)
	if err := p.run("createdb", "-h", p.dir, "-U", "slipway", name); err != nil {
		tb.Fatal(err)
	}
	return "postgres://slipway@/" + name + "?host=" + p.dir
}
