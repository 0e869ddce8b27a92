package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// Visit is a way to run commands in a frozen sandbox.
type Visit struct {
	use  *net.UnixConn // the helper counts a use as long as it is open
	talk *talk
	exec wire.Exec // what the sandbox ran
}

// Command is what the test, or the service, ran.
func (v *Visit) Command() []string { return v.exec.Args }

// Close ends what still runs.
func (v *Visit) Close() error { return errors.Join(v.talk.conn.Close(), v.use.Close()) }

// Streams of a command; nil reads nothing and drops what is written.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Size of a terminal, in characters.
type Size struct{ Rows, Cols int }

func (v *Visit) asks(cmd Command) *wire.Exec {
	x := v.exec
	x.Args, x.Beside = cmd.Args, true
	x.Env, x.Dir, x.User = environment(x.Env, cmd.Env), directory(cmd.Dir, x.Dir), first(cmd.User, x.User)
	return &x
}

// Run runs a command, as the test's user with its environment and in its
// directory. Its streams are pipes. When ctx ends the command gets SIGINT, and
// what it makes of that is the Exit.
func (v *Visit) Run(ctx context.Context, cmd Command, s Streams) (Exit, error) {
	x := v.asks(cmd)
	x.Stdin, x.Stderr = s.In != nil, true
	p, err := newPipes(s)
	if err != nil {
		return Exit{}, err
	}
	defer p.close()
	news, err := v.talk.begin(x, p.theirs...)
	p.pass()
	if err != nil {
		return Exit{}, fmt.Errorf("run %v: %w", cmd.Args, err)
	}
	defer v.talk.forget(x.Nonce)
	exit, err := v.await(ctx, x.Nonce, news, cmd.Args)
	if err != nil {
		return Exit{}, err
	}
	return exit, p.drain()
}

// await follows a command to its end.
func (v *Visit) await(ctx context.Context, nonce wire.Nonce, news <-chan wire.Body, args []string) (Exit, error) {
	asked := ctx.Done()
	for {
		select {
		case body := <-news:
			switch b := body.(type) {
			case *wire.Done:
				e := Exit{Code: int(b.Exit)}
				if e.Code != 0 {
					e.Reason = whyEnded(b)
				}
				return e, nil
			case *wire.Refused:
				return Exit{Code: int(b.Exit), Reason: b.Reason, Refused: true}, nil
			}
		case <-asked:
			asked = nil
			_ = v.talk.send(&wire.Signal{Nonce: nonce, Number: int32(unix.SIGINT)}) // or the agent is gone, which is told next
		case <-v.talk.ended:
			if len(news) > 0 {
				continue // what it said before its end counts
			}
			return Exit{}, fmt.Errorf("run %v: the sandbox was removed", args)
		}
	}
}

// Terminal is a command in a terminal of the sandbox. The caller closes it.
type Terminal struct {
	Master *os.File // our end: what is typed, and what is shown
	visit  *Visit
	nonce  wire.Nonce
	news   <-chan wire.Body
	args   []string
}

// Open runs a command in a terminal. A command that cannot be started is an Exit
// whose Refused is set, and no terminal.
func (v *Visit) Open(ctx context.Context, cmd Command, size Size) (*Terminal, Exit, error) {
	x := v.asks(cmd)
	x.TTY, x.Rows, x.Cols = true, int32(min(size.Rows, 1<<16-1)), int32(min(size.Cols, 1<<16-1))
	news, err := v.talk.begin(x)
	if err != nil {
		return nil, Exit{}, fmt.Errorf("run %v: %w", cmd.Args, err)
	}
	t := &Terminal{visit: v, nonce: x.Nonce, news: news, args: cmd.Args}
	select {
	case body := <-news:
		if r, ok := body.(*wire.Refused); ok {
			v.talk.forget(x.Nonce)
			return nil, Exit{Code: int(r.Exit), Reason: r.Reason, Refused: true}, nil
		}
		if t.Master = v.talk.terminal(x.Nonce); t.Master == nil {
			return nil, Exit{}, fmt.Errorf("run %v: its agent sent no terminal", cmd.Args)
		}
		return t, Exit{}, nil
	case <-v.talk.ended:
		return nil, Exit{}, fmt.Errorf("run %v: the sandbox was removed", cmd.Args)
	case <-ctx.Done():
		return nil, Exit{}, context.Cause(ctx)
	}
}

// Resize tells the terminal its size; who runs in it is told by SIGWINCH.
func (t *Terminal) Resize(s Size) error {
	raw, err := t.Master.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(s.Rows), Col: uint16(s.Cols)})
	})
	return errors.Join(err, failed)
}

// Wait waits for the command's end. It gets SIGINT when ctx ends.
func (t *Terminal) Wait(ctx context.Context) (Exit, error) {
	return t.visit.await(ctx, t.nonce, t.news, t.args)
}

// Close hangs up: what still runs in the terminal gets SIGHUP.
func (t *Terminal) Close() error {
	t.visit.talk.forget(t.nonce)
	return t.Master.Close()
}

// pipes join a command's streams to ours.
type pipes struct {
	theirs []*os.File // output, then input where there is one, then errors
	ours   []*os.File
	done   chan error // of the output and of the errors
}

func newPipes(s Streams) (p *pipes, err error) {
	p = &pipes{done: make(chan error, 2)}
	defer func() {
		if err != nil {
			p.pass()
			p.close()
			err = fmt.Errorf("make a pipe: %w", err)
		}
	}()
	outR, outW, err := os.Pipe()
	if err != nil {
		return p, err
	}
	p.ours, p.theirs = append(p.ours, outR), append(p.theirs, outW)
	var inR, inW *os.File
	if s.In != nil {
		if inR, inW, err = os.Pipe(); err != nil {
			return p, err
		}
		p.ours, p.theirs = append(p.ours, inW), append(p.theirs, inR)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return p, err
	}
	p.ours, p.theirs = append(p.ours, errR), append(p.theirs, errW)
	if s.In != nil {
		go func() {
			_, _ = io.Copy(inW, s.In) // a command need not read its input to the end
			drop(inW)
		}()
	}
	for from, to := range map[*os.File]io.Writer{outR: s.Out, errR: s.Err} {
		go func() { p.done <- pour(to, from) }()
	}
	return p, nil
}

// pour passes on all that comes, and goes on reading where that fails.
func pour(to io.Writer, from io.Reader) error {
	if to == nil {
		to = io.Discard
	}
	_, err := io.Copy(to, onlyReader{from})
	_, _ = io.Copy(io.Discard, from) // the command is not to be stopped by it
	return err
}

// pass closes the command's ends, once they are on their way.
func (p *pipes) pass() {
	for _, f := range p.theirs {
		drop(f)
	}
	p.theirs = nil
}

// drain waits for what the command wrote: all of it is on its way.
func (p *pipes) drain() error {
	late := time.AfterFunc(drainLimit, p.close)
	defer late.Stop()
	return errors.Join(<-p.done, <-p.done)
}

func (p *pipes) close() {
	for _, f := range p.ours {
		drop(f)
	}
}
