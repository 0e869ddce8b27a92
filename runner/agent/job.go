package agent

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// linger is how long the output pipe may stay open after everything in the
// sandbox is dead: only a holder outside can do that.
const linger = time.Second

// job is one command of this sandbox.
type job struct {
	conn    *conn // who asked for it
	nonce   wire.Nonce
	beside  bool // its end is not the sandbox's
	started int64
	stopped atomic.Bool
	pid     int
	pumps   []*pump // of its output, then of its errors where they have a pipe of their own
}

// jobs are the commands that run. The main one is the first; its end is the end
// of all others that run then.
type jobs struct {
	children *children
	asked    chan func() // of the main thread
	wake     int         // an eventfd that tells it so; -1 until it is needed

	mu      sync.Mutex
	running map[wire.Nonce]*job
}

func newJobs() *jobs {
	return &jobs{children: newChildren(), asked: make(chan func(), 64), wake: -1, running: map[wire.Nonce]*job{}}
}

// start begins a command, or reports why it cannot. The files are the other
// side's pipes; they are closed when they are not needed any more.
func (js *jobs) start(c *conn, x *wire.Exec, files []int) {
	j := &job{conn: c, nonce: x.Nonce, beside: x.Beside}
	s, why := newStdio(x, files)
	var ended <-chan unix.WaitStatus
	if why == nil {
		ended, why = js.launch(j, x, s)
	}
	if why != nil {
		s.drop()
		why.Nonce = x.Nonce
		c.send(why, -1)
		return
	}
	js.mu.Lock()
	js.running[j.nonce] = j
	js.mu.Unlock()
	c.send(&wire.Started{Nonce: j.nonce, At: j.started}, s.master)
	dropFD(s.master)
	go js.finish(j, ended)
}

// launch puts everything in place and starts the command.
func (js *jobs) launch(j *job, x *wire.Exec, s *stdio) (ended <-chan unix.WaitStatus, why *wire.Refused) {
	u, why := lookup(x.User)
	if why != nil {
		return nil, why
	}
	if why := place(x, u); why != nil {
		return nil, why
	}
	if why := s.handTo(u); why != nil {
		return nil, why
	}
	env := complete(x.Env, u)
	attr := &syscall.ProcAttr{
		Dir: x.Dir, Env: env, Files: s.child(),
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: x.TTY, Credential: u.credential()},
	}
	j.pid, ended, why = js.children.start(func() (int, *wire.Refused) { return run(x.Args, env, attr) })
	if why != nil {
		return nil, why
	}
	j.started = now()
	j.pumps = s.pump()
	return ended, nil
}

// stop kills everything in the sandbox; the main command's record then says so.
func (js *jobs) stop() {
	js.mu.Lock()
	for _, j := range js.running {
		j.stopped.Store(true)
	}
	js.mu.Unlock()
	killAll()
}

// signal sends a signal to one command, as Docker does to a container's first
// process; SIGKILL, which it could not pass on, goes to its whole process group.
// One that has ended gets none.
func (js *jobs) signal(s *wire.Signal) {
	js.mu.Lock()
	defer js.mu.Unlock()
	j := js.running[s.Nonce]
	if j == nil {
		return
	}
	to := j.pid
	if unix.Signal(s.Number) == unix.SIGKILL {
		to = -j.pid
	}
	_ = unix.Kill(to, unix.Signal(s.Number)) // it may end this very moment
}

// finish waits for a command, lets its output drain and sends its record. The
// main command's end is also the end of whatever else still runs.
func (js *jobs) finish(j *job, end <-chan unix.WaitStatus) {
	status := <-end
	ended := now()
	interrupted := j.stopped.Load()
	js.mu.Lock()
	delete(js.running, j.nonce)
	js.mu.Unlock()
	if j.beside {
		_ = unix.Kill(-j.pid, unix.SIGKILL) // what it left in the background holds its output
	} else {
		killAll()
		js.children.gone()
	}
	d := &wire.Done{Nonce: j.nonce, Exit: int32(status.ExitStatus()), Interrupted: interrupted, Started: j.started, Ended: ended}
	for _, p := range j.pumps {
		d.Lost = !p.drain(linger) || d.Lost
		d.Bytes += p.bytes.Load()
	}
	if status.Signaled() {
		d.Signal = int32(status.Signal())
		d.Exit = 128 + d.Signal
	}
	j.conn.send(d, -1)
}

// hangUp ends the commands of a socket that has ended.
func (js *jobs) hangUp(c *conn) {
	js.mu.Lock()
	defer js.mu.Unlock()
	for _, j := range js.running {
		if j.conn == c {
			_ = unix.Kill(-j.pid, unix.SIGKILL)
		}
	}
}

// killAll ends every process of the sandbox but this one. The kernel walks the
// list of processes under a lock that forks wait for, so no fork bomb escapes.
func killAll() { _ = unix.Kill(-1, unix.SIGKILL) }

// complete adds what a program may rely on and the request does not name.
func complete(env []string, u *user) []string {
	host, _ := os.Hostname()
	for _, d := range []string{"PATH=" + defaultPath, "HOME=" + u.home, "HOSTNAME=" + host} {
		if _, ok := lookupEnv(env, d[:index(d, '=')]); !ok {
			env = append(env, d)
		}
	}
	return env
}

// defaultPath is Docker's.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookupEnv gives the last value of a name, as getenv of most programs would
// not: environments are made unique by the runner.
func lookupEnv(env []string, name string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if e := env[i]; len(e) > len(name) && e[len(name)] == '=' && e[:len(name)] == name {
			return e[len(name)+1:], true
		}
	}
	return "", false
}

func index(s string, b byte) int {
	for i := range len(s) {
		if s[i] == b {
			return i
		}
	}
	return len(s)
}
