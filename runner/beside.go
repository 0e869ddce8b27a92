package runner

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// Command is one more command in a sandbox whose main one runs. What it leaves
// open is the main command's.
type Command struct {
	Args    []string
	User    string            // empty: the main command's
	Dir     string            // relative to the main command's; empty: the same
	Env     map[string]string // over the main command's
	Timeout time.Duration     // 0: as long as ctx
}

// Exit is how a command ended.
type Exit struct {
	Code     int    // its exit code; 128+n when signal n ended it, 126 and 127 when it could not be started
	Reason   string // a sentence where Code is not 0
	TimedOut bool
	Refused  bool // it could not be started
}

// besideOutput is how much of such a command's output is passed on.
const besideOutput = 1 << 20

// Exec runs a command in the container, beside its own, and streams its output to
// out. It runs as the container's user, with its environment and in its
// directory. An error means that the container is gone, or ctx ended.
func (c *Container) Exec(ctx context.Context, cmd Command, out io.Writer) (Exit, error) {
	select {
	case <-c.ended:
		return Exit{}, fmt.Errorf("run %v in %s: it has ended", cmd.Args, c.s.req.ID)
	default:
	}
	x := c.s.req.exec(c.s.root.Config)
	x.Args, x.Beside, x.Secrets, x.Out, x.Hosts = cmd.Args, true, nil, "", ""
	x.Env, x.Dir, x.User = environment(x.Env, cmd.Env), directory(cmd.Dir, x.Dir), first(cmd.User, x.User)
	output, w, err := newOutput(out, besideOutput)
	if err != nil {
		return Exit{}, fmt.Errorf("run %v in %s: %w", cmd.Args, c.s.req.ID, err)
	}
	news, err := c.s.talk.begin(x, w)
	drop(w)
	if err != nil {
		<-output.done //nolint:errcheck // its error is a consequence of this one
		return Exit{}, fmt.Errorf("run %v in %s: %w", cmd.Args, c.s.req.ID, err)
	}
	defer c.s.talk.forget(x.Nonce)
	exit, err := c.follow(ctx, cmd, x.Nonce, news)
	if err != nil {
		drop(output.r) // whoever still writes to it is cut off with the container
		<-output.done  //nolint:errcheck // its error is a consequence of this one
		return Exit{}, err
	}
	if err := <-output.done; err != nil {
		return Exit{}, fmt.Errorf("run %v in %s: read its output: %w", cmd.Args, c.s.req.ID, err)
	}
	return exit, nil
}

// follow waits for the end of a command beside the main one. Time and ctx end it
// with SIGKILL.
func (c *Container) follow(ctx context.Context, cmd Command, nonce wire.Nonce, news <-chan wire.Body) (Exit, error) {
	var late <-chan time.Time
	if cmd.Timeout > 0 {
		t := time.NewTimer(cmd.Timeout)
		defer t.Stop()
		late = t.C
	}
	timedOut := false
	canceled := ctx.Done()
	kill := func() { _ = c.s.talk.send(&wire.Signal{Nonce: nonce, Number: int32(unix.SIGKILL)}) } // or the agent is gone
	for {
		select {
		case body := <-news:
			switch b := body.(type) {
			case *wire.Done:
				if ctx.Err() != nil {
					return Exit{}, context.Cause(ctx)
				}
				e := Exit{Code: int(b.Exit), TimedOut: timedOut}
				if timedOut {
					e.Reason = fmt.Sprintf("stopped after its time limit of %s", cmd.Timeout)
				} else if e.Code != 0 {
					e.Reason = whyEnded(b)
				}
				return e, nil
			case *wire.Refused:
				return Exit{Code: int(b.Exit), Reason: b.Reason, Refused: true}, nil
			}
		case <-c.s.talk.ended:
			if len(news) > 0 {
				continue // what it said before its end counts
			}
			return Exit{}, fmt.Errorf("run %v in %s: it has ended", cmd.Args, c.s.req.ID)
		case <-late:
			timedOut, late = true, nil
			kill()
		case <-canceled:
			canceled = nil
			kill()
		}
	}
}

// whyEnded is a sentence about a command that ended badly.
func whyEnded(d *wire.Done) string {
	if d.Signal != 0 {
		return fmt.Sprintf("ended by %s (exit code %d)", unix.SignalName(unix.Signal(d.Signal)), d.Exit)
	}
	return fmt.Sprintf("exit code %d", d.Exit)
}
