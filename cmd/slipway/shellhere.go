//go:build linux && !client

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"slipway/internal/server"
	"slipway/runner"
)

func (g *globals) listKept(ctx context.Context) error {
	all, err := runner.ListFrozen(ctx, g.runnerDir())
	if err != nil {
		return err
	}
	if g.json {
		type kept struct {
			Name     string    `json:"name"`
			Until    time.Time `json:"until"`
			Services []string  `json:"services,omitempty"`
			InUse    int       `json:"in_use"`
		}
		list := []kept{}
		for _, f := range all {
			list = append(list, kept{f.Name, f.Until.UTC().Truncate(time.Second), f.Services, f.Users})
		}
		return printJSON(os.Stdout, list)
	}
	if len(all) == 0 {
		fmt.Println("no failed test is kept; `slipway run pipeline --keep-failed` keeps them")
		return nil
	}
	list := make([]server.Kept, len(all))
	for i, f := range all {
		list[i] = server.Kept{Test: f.Name, Until: f.Until, InUse: f.Users, Services: f.Services}
	}
	return showKept(list)
}

func (g *globals) removeKept(ctx context.Context, arg string) error {
	found, err := g.kept(ctx, arg)
	if err != nil {
		return err
	}
	for _, f := range found {
		if err := f.Thaw(ctx); err != nil {
			return err
		}
		fmt.Println("removed", f.Name)
	}
	return nil
}

// shell runs a command in a kept sandbox, in a terminal where we have one.
func (g *globals) shell(ctx context.Context, arg string, command []string, f shellFlags) error {
	found, err := g.kept(ctx, arg)
	if err != nil {
		return err
	}
	if len(found) > 1 {
		names := make([]string, len(found))
		for i, k := range found {
			names[i] = k.Name
		}
		return usagef("%s has %d tests that are kept; name one: %s", arg, len(found), strings.Join(names, ", "))
	}
	v, err := found[0].Visit(ctx, f.service)
	if err != nil {
		return usageError{err}
	}
	defer v.Close()
	cmd := runner.Command{Args: command, User: f.user}
	if len(command) == 0 {
		cmd.Args = loginShell
	}
	var e runner.Exit
	if term.IsTerminal(int(os.Stdin.Fd())) && isTerminal(os.Stdout) {
		if len(command) == 0 {
			fmt.Fprintf(os.Stderr, "slipway: %s as it was left; it ran: %s\n", found[0].Name, strings.Join(v.Command(), " "))
		}
		e, err = inOurTerminal(ctx, v, cmd)
	} else {
		e, err = v.Run(ctx, cmd, runner.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	}
	if err != nil {
		return err
	}
	if e.Refused {
		fmt.Fprintln(os.Stderr, "slipway:", e.Reason)
	}
	if e.Code != 0 {
		return exitError(e.Code)
	}
	return nil
}

// loginShell is bash where the image has it. The shell decides: nothing of our
// input may be lost on one that is not there.
var loginShell = []string{"/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash; exec /bin/sh"}

// inOurTerminal joins our terminal to one in the sandbox until the command ends.
func inOurTerminal(ctx context.Context, v *runner.Visit, cmd runner.Command) (runner.Exit, error) {
	in := int(os.Stdin.Fd())
	raw, err := term.MakeRaw(in)
	if err != nil {
		return runner.Exit{}, fmt.Errorf("take the terminal over: %w", err)
	}
	defer func() { _ = term.Restore(in, raw) }() // nothing else could be done about it
	sizes, stop := sizesOf(in)
	defer stop()
	return inTerminal(ctx, v, cmd, server.ShellRequest{Term: os.Getenv("TERM"), Size: terminalSize(in)},
		server.Console{In: os.Stdin, Out: os.Stdout, Sizes: sizes})
}

// lastWords is how long what a command has said may be on its way.
const lastWords = 200 * time.Millisecond

// sizesOf gives our terminal's size whenever it changes, until it is stopped.
func sizesOf(in int) (sizes <-chan server.Size, stop func()) {
	resized, out, done := make(chan os.Signal, 1), make(chan server.Size), make(chan struct{})
	signal.Notify(resized, unix.SIGWINCH)
	go func() {
		for range resized {
			select {
			case out <- terminalSize(in):
			case <-done:
			}
		}
	}()
	return out, func() {
		signal.Stop(resized)
		close(resized)
		close(done)
	}
}

// rerunFrozen runs the command of a kept test once more where it ran.
func (g *globals) rerunFrozen(ctx context.Context, arg string) error {
	if err := mustBeRoot(); err != nil {
		return err
	}
	arg, err := g.recordNamed(ctx, arg)
	if err != nil {
		return err
	}
	found, err := g.kept(ctx, arg)
	if err != nil {
		return err
	}
	if len(found) > 1 {
		return usagef("%s has %d tests that are kept; name one: RUN/TEST (`slipway shell` lists them)", arg, len(found))
	}
	v, err := found[0].Visit(ctx, "")
	if err != nil {
		return err
	}
	defer v.Close()
	e, err := v.Run(ctx, runner.Command{Args: v.Command()}, runner.Streams{Out: os.Stdout, Err: os.Stderr})
	if err != nil {
		return err
	}
	if e.Code != 0 {
		fmt.Fprintln(os.Stderr, "slipway:", e.Reason)
		return exitError(e.Code)
	}
	return nil
}

// shellHere does what `slipway shell` is asked on this root.
func (g *globals) shellHere(ctx context.Context, f shellFlags, args, command []string) error {
	if err := mustBeRoot(); err != nil {
		return err
	}
	switch {
	case len(args) == 0:
		return g.listKept(ctx)
	case f.rm:
		return g.removeKept(ctx, args[0])
	}
	return g.shell(ctx, args[0], command, f)
}
