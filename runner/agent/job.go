package agent

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// linger is how long the output pipe may stay open after everything in the
// sandbox is dead: only a holder outside can do that.
const linger = time.Second

// job is the one command of this sandbox.
type job struct {
	nonce   wire.Nonce
	started int64
	stopped atomic.Bool
	pump    *pump
}

// start begins the command, or reports why it cannot. out is the runner's pipe.
func start(x *wire.Exec, out int) *job {
	j := &job{nonce: x.Nonce}
	pid, why := j.launch(x, out)
	if why != nil {
		dropFD(out)
		why.Nonce = x.Nonce
		send(why)
		return j
	}
	send(&wire.Started{Nonce: j.nonce, At: j.started})
	go j.finish(pid)
	return j
}

// launch puts everything in place and starts the command.
func (j *job) launch(x *wire.Exec, out int) (pid int, why *wire.Refused) {
	u, why := lookup(x.User)
	if why != nil {
		return 0, why
	}
	if why := place(x, u); why != nil {
		return 0, why
	}
	env := complete(x.Env, u)
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, refuse(126, "open /dev/null: "+err.Error())
	}
	defer dropFD(null)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, refuse(126, "make the output pipe: "+err.Error())
	}
	attr := &syscall.ProcAttr{
		Dir: x.Dir,
		Env: env,
		// One pipe for both: what was written first is read first.
		Files: []uintptr{uintptr(null), uintptr(pipe[1]), uintptr(pipe[1])},
		Sys:   &syscall.SysProcAttr{Setsid: true, Credential: u.credential()},
	}
	pid, why = run(x.Args, env, attr)
	dropFD(pipe[1])
	if why != nil {
		dropFD(pipe[0])
		return 0, why
	}
	j.started = now()
	j.pump = newPump(pipe[0], out)
	return pid, nil
}

// stop kills the command and all it started; finish then reports.
func (j *job) stop() {
	j.stopped.Store(true)
	killAll()
}

// finish waits for the command, ends what it left running, lets the output
// drain and sends the completion record.
func (j *job) finish(pid int) {
	status := reap(pid)
	ended := now()
	interrupted := j.stopped.Load()
	killAll()
	reap(-1)
	lost := !j.pump.drain(linger)
	d := &wire.Done{
		Nonce: j.nonce, Exit: int32(status.ExitStatus()), Interrupted: interrupted, Lost: lost,
		Bytes: j.pump.bytes.Load(), Started: j.started, Ended: ended,
	}
	if status.Signaled() {
		d.Signal = int32(status.Signal())
		d.Exit = 128 + d.Signal
	}
	send(d)
}

// killAll ends every process of the sandbox but this one. The kernel walks the
// list of processes under a lock that forks wait for, so no fork bomb escapes.
func killAll() { _ = unix.Kill(-1, unix.SIGKILL) }

// reap collects children, orphans that became ours included, until pid is among
// them; with -1, until there are none.
func reap(pid int) (status unix.WaitStatus) {
	for {
		got, err := unix.Wait4(-1, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || got == pid {
			return status
		}
	}
}

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
