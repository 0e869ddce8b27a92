// Package dockertest starts a real Docker engine for tests, in namespaces of its
// own: its networks, firewall rules, mounts and processes end with it. It refuses
// to be imported by anything but tests.
package dockertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Engine is a dockerd that nobody else uses.
type Engine struct {
	Host string // unix://…
	PID  int    // its network namespace is /proc/PID/ns/net

	dir, cgroup string
	cmd         *exec.Cmd
	ended       chan struct{} // closed when it has; its exit code tells nothing that its log does not
	servers     []*http.Server
	serving     []chan error
}

// patience is how long the engine may take to start, or to end.
const patience = time.Minute

// Start runs dockerd with all its state below dir, a short path. Stop ends it.
func Start(ctx context.Context, dir string) (*Engine, error) {
	e := &Engine{Host: "unix://" + filepath.Join(dir, "docker.sock"), dir: dir, cgroup: "slipway-docker-" + fmt.Sprint(os.Getpid()), ended: make(chan struct{})}
	log, err := os.Create(filepath.Join(dir, "dockerd.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// Volume stores of other tests are let go: it would hold them for as long as it lives.
	script := `awk '$2 ~ "/volumes/data$" { print $2 }' /proc/mounts | while read store; do umount -l "$store"; done
		mount -t proc proc /proc && busybox ip link set lo up && exec "$@"`
	e.cmd = exec.Command("sh", "-c", script, "sh", "dockerd", "--host", e.Host, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "docker.pid"), "--cgroup-parent", "/"+e.cgroup, "--storage-driver", "overlay2")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the engine dies with the thread that started it
		err := e.cmd.Start()
		started <- err
		if err == nil {
			_ = e.cmd.Wait()
			close(e.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	e.PID = e.cmd.Process.Pid
	if err := e.await(ctx); err != nil {
		said, _ := os.ReadFile(log.Name())
		return nil, errors.Join(fmt.Errorf("dockerd does not answer: %w: %s", err, said), e.Stop())
	}
	return e, nil
}

func (e *Engine) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := e.Docker(ctx, "version")
		if err == nil {
			return nil
		}
		select {
		case <-e.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Docker runs docker against the engine and gives what it prints.
func (e *Engine) Docker(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "docker", append([]string{"--host", e.Host}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// Serve serves h on one port of the loopback, both here and where the engine is:
// an image gets the same name on both sides. It ends with Stop.
func (e *Engine) Serve(h http.Handler) (address string, err error) {
	here, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	there, err := e.listen(here.Addr().String())
	if err != nil {
		return "", errors.Join(err, here.Close())
	}
	server := &http.Server{Handler: h}
	for _, l := range []net.Listener{here, there} {
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		e.serving = append(e.serving, done)
	}
	e.servers = append(e.servers, server)
	return here.Addr().String(), nil
}

// listen opens a socket in the engine's network namespace.
func (e *Engine) listen(address string) (l net.Listener, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends here
		var ns *os.File
		if ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", e.PID)); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			l, err = net.Listen("tcp", address)
		}
	}()
	<-done
	return l, err
}

// Stop ends the engine and all that it runs; of what it made only dir is left.
func (e *Engine) Stop() error {
	var errs []error
	for _, s := range e.servers {
		errs = append(errs, s.Close())
	}
	for _, done := range e.serving {
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, e.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-e.ended:
	case <-time.After(patience):
		errs = append(errs, errors.New("dockerd had to be killed"), e.cmd.Process.Kill())
		<-e.ended
	}
	return errors.Join(append(errs, e.removeCgroups())...)
}

// removeCgroups takes away what containers were accounted in, innermost first.
func (e *Engine) removeCgroups() error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup/" + e.cgroup, "/sys/fs/cgroup/*/" + e.cgroup} {
		found, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, dir := range found {
			inner, err := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
			errs = append(errs, err)
			for _, procs := range inner {
				errs = append(errs, removeCgroup(filepath.Dir(procs)))
			}
			errs = append(errs, removeCgroup(dir))
		}
	}
	return errors.Join(errs...)
}

// removeCgroup waits until the kernel has let go of the last process.
func removeCgroup(dir string) error {
	limit := time.After(10 * time.Second)
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-limit:
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}
